"""A world written down as a drive: an MCAP recording in the convention of DESIGN section 8, with ground truth.

Beyond what every drive has, it holds

- ``/markers/annotations``: every object within 80 m, in `base_link`; an entity's metadata gives its ``category``, a
  name in CLASSES, and its ``visibility``: the largest part of it that any camera sees, 0 to 1;
- ``/<CAMERA>/annotations`` (foxglove.ImageAnnotations): the 2-D truth of the image captured at the same stamp. One
  outline per object, around the whole of it as far as it lies in the image; its metadata gives ``id``, ``category``,
  ``visibility`` and ``truncation`` (both 0 to 1), and ``visible_box``: x1 y1 x2 y2 around the pixels that show;
- ``/tags`` (JSON): light, weather and scene, at every tick;
- a metadata record ``scenario``: its name, the seed, light, weather, and the scenes that occur.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from foxglove_schemas_protobuf.Color_pb2 import Color
from foxglove_schemas_protobuf.CubePrimitive_pb2 import CubePrimitive
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.KeyValuePair_pb2 import KeyValuePair
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.Point2_pb2 import Point2
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation
from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame
from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from mcap.writer import CompressionType, Writer

from engines.world.rig import BASE_FROM_LIDAR
from engines.world.scenario import stream
from engines.world.truth import Objects
from engines.world.world import World
from perception.geometry import quaternion_from_rotation
from perception.messages import CLASSES, EncodedImage, Float32, Transform, Truth
from perception.output import foxglove
from perception.output.files import AtomicFile
from perception.output.palette import CLASS_COLOURS

START_NS: Final = 1_767_225_600_000_000_000
"""The first tick of every drive: the start of the year 2026."""
RATE_HZ: Final = 10.0
_FIRST_S: Final = 0.05
_LIDAR: Final = "LIDAR_TOP"
_STAGGER_MS: Final = {
    "CAM_FRONT_LEFT": -0.7, "CAM_FRONT": 0.0, "CAM_FRONT_RIGHT": 0.7,
    "CAM_BACK_RIGHT": 1.5, "CAM_BACK": 2.1, "CAM_BACK_LEFT": -1.5,
}  # fmt: skip
"""Cameras fire as the LiDAR sweeps past them, roughly."""
_JITTER_MS: Final = 0.12
_STATIC_EVERY: Final = 10
QUALITY: Final = 80
_OVERSAMPLE: Final = 2
_POSE_DIGITS: Final = 9
_GRAIN_M: Final = 1 / 64
"""LiDAR coordinates are rounded to this, which compresses and is less than its noise."""


class Item(NamedTuple):
    """One message, still to be serialised: a protobuf message, or a dict for JSON."""

    topic: str
    stamp_ns: int
    message: Message | dict[str, Any]


def record(
    world: World,
    path: Path,
    seconds: float,
    *,
    rate_hz: float = RATE_HZ,
    oversample: int = _OVERSAMPLE,
    quality: int = QUALITY,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Drive `world` from its start for `seconds` and write it to `path`, whole or not at all.

    `rate_hz` ticks are taken a second: few of them show more of a town for the same number of images. `quality` is that
    of the JPEG images, 0 to 100; `progress` is told how many ticks are done. Raises `OutputError`.
    """
    file = AtomicFile(path)
    try:
        _record(world, file, ticks(seconds, rate_hz), rate_hz, oversample, quality, progress)
    except BaseException:
        file.partial.unlink(missing_ok=True)
        raise


def ticks(seconds: float, rate_hz: float = RATE_HZ) -> int:
    """How many frame sets a drive of this length has."""
    return max(round(seconds * rate_hz), 1)


def _record(
    world: World,
    file: AtomicFile,
    count: int,
    rate_hz: float,
    oversample: int,
    quality: int,
    progress: Callable[[int], None],
) -> None:
    writer = Writer(file, compression=CompressionType.ZSTD)  # type: ignore[arg-type]
    writer.start(library="engines.world")
    channels = _Channels(writer)
    scenes: set[str] = set()
    jitter = stream(world.seed, "drive")
    for tick in range(count):
        items = sorted(_tick(world, tick, rate_hz, jitter, oversample, quality), key=lambda item: item.stamp_ns)
        for item in items:
            channels.write(item, tick)
        scenes.add(world.tags["scene"])
        progress(tick + 1)
    scenario = world.scenario
    facts = {"name": scenario.name, "seed": str(world.seed), "light": scenario.light, "weather": scenario.weather}
    writer.add_metadata("scenario", facts | {"scenes": " ".join(sorted(scenes))})
    writer.finish()  # type: ignore[no-untyped-call]
    file.close()


def _tick(
    world: World, tick: int, rate_hz: float, jitter: np.random.Generator, oversample: int, quality: int
) -> Iterator[Item]:
    """All messages of one tick; the LiDAR, the truth and the tags bear its stamp, images their own captures."""
    tick_s = _FIRST_S + tick / rate_hz
    offsets = {name: (_STAGGER_MS.get(name, 0.0) + float(jitter.normal(0, _JITTER_MS))) * 1e-3 for name in world.rig}
    before = sorted((name for name in world.rig if offsets[name] < 0), key=offsets.__getitem__)
    after = sorted((name for name in world.rig if offsets[name] >= 0), key=offsets.__getitem__)
    best: dict[int, float] = {}

    def capture(name: str) -> Iterator[Item]:
        world.step(tick_s + offsets[name])
        stamp = _stamp(world)
        view = world.render(name, oversample)
        for number, visibility in zip(view.objects.ids.tolist(), view.objects.visibility.tolist(), strict=True):
            best[number] = max(best.get(number, 0.0), visibility)
        yield Item("/tf", stamp, _transform(stamp, foxglove.MAP, foxglove.BASE, world.map_from_base))
        yield Item(f"/{name}/camera_info", stamp, foxglove.calibration(world.rig[name], stamp))
        data = cv2.imencode(".jpg", view.image, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1]
        encoded = EncodedImage("jpeg", data.tobytes())
        yield Item(f"/{name}/image_rect_compressed", stamp, foxglove.image(name, encoded, stamp))
        yield Item(f"/{name}/annotations", stamp, _annotations(view.objects, stamp))

    for name in before:
        yield from capture(name)
    world.step(tick_s)
    stamp, truth = _stamp(world), world.truth()
    if tick % _STATIC_EVERY == 0:
        yield Item("/tf", stamp, _transform(stamp, foxglove.BASE, _LIDAR, BASE_FROM_LIDAR))
        for name, camera in world.rig.items():
            yield Item("/tf", stamp, _transform(stamp, foxglove.BASE, name, camera.base_from_camera))
    yield Item("/tf", stamp, _transform(stamp, foxglove.MAP, foxglove.BASE, world.map_from_base))
    yield Item("/pose", stamp, _pose(stamp, world.map_from_base))
    yield Item(f"/{_LIDAR}", stamp, _cloud(stamp, world.sweep().points))
    yield Item("/tags", stamp, dict(world.tags))
    for name in after:
        yield from capture(name)
    yield Item("/markers/annotations", stamp, _scene(truth, stamp, best, rate_hz))


def _stamp(world: World) -> int:
    return START_NS + round(world.time_s * 1e9)


class _Channels:
    """Opens a channel at the first message on its topic."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def write(self, item: Item, sequence: int) -> None:
        """Append a message; its log time is its stamp."""
        message = item.message
        if isinstance(message, Message):
            data, encoding = message.SerializeToString(deterministic=True), "protobuf"
        else:
            data, encoding = json.dumps(message, sort_keys=True).encode(), "json"
        if item.topic not in self._channels:
            self._channels[item.topic] = self._writer.register_channel(item.topic, encoding, self._schema(message))
        self._writer.add_message(self._channels[item.topic], item.stamp_ns, data, item.stamp_ns, sequence)

    def _schema(self, message: Message | dict[str, Any]) -> int:
        name = message.DESCRIPTOR.full_name if isinstance(message, Message) else "perception.Tags"
        if name not in self._schemas:
            if isinstance(message, Message):
                self._schemas[name] = self._writer.register_schema(name, "protobuf", _descriptors(message))
            else:
                shape = {"type": "object", "properties": {key: {"type": "string"} for key in sorted(message)}}
                self._schemas[name] = self._writer.register_schema(name, "jsonschema", json.dumps(shape).encode())
        return self._schemas[name]


def _descriptors(message: Message) -> bytes:
    """The file that defines a message after those that it imports, as MCAP wants a protobuf schema."""
    files = FileDescriptorSet()
    known: set[str] = set()

    def add(file: Any) -> None:
        if file.name in known:
            return
        known.add(file.name)
        for imported in file.dependencies:
            add(imported)
        file.CopyToProto(files.file.add())

    add(message.DESCRIPTOR.file)
    return files.SerializeToString(deterministic=True)


def _transform(stamp_ns: int, parent: str, child: str, pose: Transform) -> FrameTransform:
    message = FrameTransform(timestamp=foxglove.timestamp(stamp_ns), parent_frame_id=parent, child_frame_id=child)
    _place(message.translation, message.rotation, pose)
    return message


def _pose(stamp_ns: int, pose: Transform) -> PoseInFrame:
    message = PoseInFrame(timestamp=foxglove.timestamp(stamp_ns), frame_id=foxglove.MAP)
    _place(message.pose.position, message.pose.orientation, pose)
    return message


def _cloud(stamp_ns: int, points: Float32) -> PointCloud:
    data = (np.round(points / _GRAIN_M) * _GRAIN_M).astype("<f4").tobytes()
    message = PointCloud(timestamp=foxglove.timestamp(stamp_ns), frame_id=_LIDAR, point_stride=12, data=data)
    message.pose.orientation.w = 1.0
    for offset, name in enumerate("xyz"):
        message.fields.add(name=name, offset=4 * offset, type=PackedElementField.FLOAT32)
    return message


def _scene(truth: Truth, stamp_ns: int, best: dict[int, float], rate_hz: float) -> SceneUpdate:
    update = SceneUpdate()
    stamp = foxglove.timestamp(stamp_ns)
    for i, name in enumerate(truth.ids):
        label = int(truth.labels[i])
        entity = update.entities.add(timestamp=stamp, frame_id=foxglove.BASE, id=name)
        entity.lifetime.FromMilliseconds(round(1500 / rate_hz))
        facts = {"category": CLASSES[label], "visibility": f"{best.get(int(name), 0.0):.2f}"}
        entity.metadata.extend(KeyValuePair(key=key, value=value) for key, value in facts.items())
        cube = CubePrimitive(color=_colour(label, 0.35))
        yaw = float(truth.yaws[i])
        cube.pose.position.x, cube.pose.position.y, cube.pose.position.z = (
            round(float(v), 3) for v in truth.positions[i]
        )
        cube.pose.orientation.z, cube.pose.orientation.w = round(np.sin(yaw / 2), 5), round(np.cos(yaw / 2), 5)
        cube.size.x, cube.size.y, cube.size.z = (round(float(v), 3) for v in truth.sizes[i])
        entity.cubes.append(cube)
    return update


def _annotations(objects: Objects, stamp_ns: int) -> ImageAnnotations:
    stamp = foxglove.timestamp(stamp_ns)
    message = ImageAnnotations(timestamp=stamp)
    for i, label in enumerate(objects.labels.tolist()):
        x1, y1, x2, y2 = (round(v, 1) for v in objects.boxes[i].tolist())
        facts = {
            "id": str(objects.ids[i]),
            "category": CLASSES[label],
            "visibility": f"{objects.visibility[i]:.2f}",
            "truncation": f"{objects.truncation[i]:.2f}",
            "visible_box": " ".join(f"{v:.1f}" for v in objects.visible_boxes[i].tolist()),
        }
        message.points.append(
            PointsAnnotation(
                timestamp=stamp,
                type=PointsAnnotation.Type.LINE_LOOP,
                points=[Point2(x=x, y=y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))],
                outline_color=_colour(label, 1.0),
                thickness=1,
                metadata=[KeyValuePair(key=key, value=value) for key, value in facts.items()],
            )
        )
    return message


def _colour(label: int, alpha: float) -> Color:
    red, green, blue = CLASS_COLOURS[label]
    return Color(r=red / 255, g=green / 255, b=blue / 255, a=alpha)


def _place(translation: Any, rotation: Any, pose: Transform) -> None:
    """Without the last digits, in which sines and cosines of one processor differ from those of another."""
    place, turn = (np.round(v, _POSE_DIGITS) + 0.0 for v in (pose.translation, quaternion_from_rotation(pose.rotation)))
    translation.x, translation.y, translation.z = place.tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = turn.tolist()
