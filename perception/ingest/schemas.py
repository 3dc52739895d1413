"""Foxglove's protobuf messages to the pipeline's records.

Message definitions: foxglove-sdk, ``schemas/proto/foxglove``. What a message holds is checked here; a `ValueError` says
in a few words what is wrong with it, and the caller adds where it was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame
from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate
from google.protobuf.message import DecodeError

from perception.geometry import rotation_from_quaternion
from perception.messages import Float, Float32, Transform

CALIBRATION: Final = "foxglove.CameraCalibration"
IMAGE: Final = "foxglove.CompressedImage"
VIDEO: Final = "foxglove.CompressedVideo"
TRANSFORM: Final = "foxglove.FrameTransform"
TRANSFORMS: Final = "foxglove.FrameTransforms"
POINT_CLOUD: Final = "foxglove.PointCloud"
POSE: Final = "foxglove.PoseInFrame"
SCENE: Final = "foxglove.SceneUpdate"

MESSAGES: Final[dict[str, Any]] = {
    CALIBRATION: CameraCalibration,
    IMAGE: CompressedImage,
    VIDEO: CompressedVideo,
    TRANSFORM: FrameTransform,
    TRANSFORMS: FrameTransforms,
    POINT_CLOUD: PointCloud,
    POSE: PoseInFrame,
    SCENE: SceneUpdate,
}
"""The messages that are read, by schema name; those of other schemas are passed over."""

MAX_SIDE: Final = 16_384
_MAX_POINTS: Final = 10_000_000
_UNIT_TOLERANCE: Final = 1e-3
_LARGEST: Final = 1e12  # pixels, metres: beyond any that are true, well within what can be squared

_DISTORTIONS: Final = {
    "plumb_bob": ("plumb_bob", 5),
    "rational_polynomial": ("rational_polynomial", 8),
    "kannala_brandt": ("kannala_brandt", 4),
    "equidistant": ("kannala_brandt", 4),  # ROS's name
    "fisheye": ("kannala_brandt", 4),  # OpenCV's name
}
"""Name in a calibration to the pipeline's name and its number of coefficients."""

_POINT_TYPES: Final[dict[int, np.dtype[Any]]] = {
    PackedElementField.FLOAT32: np.dtype("<f4"),
    PackedElementField.FLOAT64: np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A camera's intrinsics, as in `messages.Camera`."""

    width: int
    height: int
    intrinsics: Float
    distortion_model: str
    distortion: Float


@dataclass(frozen=True, slots=True)
class Edge:
    """A transform between two frames of reference."""

    stamp_ns: int
    parent: str
    child: str
    parent_from_child: Transform


@dataclass(frozen=True, slots=True)
class Sweep:
    """A point cloud: `points` (N, 3) float32 in a sensor's frame, which `frame_from_sensor` places in `frame`."""

    stamp_ns: int
    frame: str
    frame_from_sensor: Transform
    points: Float32


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    """A ground-truth box in a frame of reference: centre and axes as `frame_from_box`, `size` (3,) along them.

    `visibility` is the largest part of it that any camera sees, in [0, 1], NaN where the label does not tell.
    """

    stamp_ns: int
    frame: str
    id: str
    category: str
    frame_from_box: Transform
    size: Float
    visibility: float


def parse(schema: str, data: bytes) -> Any:
    """Parse a message of one of `MESSAGES`."""
    try:
        return MESSAGES[schema].FromString(data)
    except DecodeError:
        raise ValueError(f"{len(data)} bytes that are not a {schema}") from None


def stamp_of(message: Any, log_ns: int) -> int:
    """The message's own time stamp in nanoseconds, `log_ns` where it has none."""
    if not message.HasField("timestamp"):
        return log_ns
    return int(message.timestamp.seconds) * 1_000_000_000 + int(message.timestamp.nanos)


def calibration_of(message: Any, *, rectified: bool) -> Calibration:
    """Read a CameraCalibration; rectified images follow P (K where P is not set) and have no distortion."""
    if not (0 < message.width <= MAX_SIDE and 0 < message.height <= MAX_SIDE):
        raise ValueError(f"image size {message.width}x{message.height}, expected 1x1 to {MAX_SIDE}x{MAX_SIDE}")
    if rectified and any(message.P):
        intrinsics = _matrix("P", message.P, (3, 4))[:, :3]
    else:
        intrinsics = _matrix("K", message.K, (3, 3))
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise ValueError(
            f"focal lengths {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g} px in its intrinsic matrix, expected over 0"
        )
    model, coefficients = ("none", np.zeros(0)) if rectified else distortion_of(message.distortion_model, message.D)
    return Calibration(message.width, message.height, intrinsics.copy(), model, coefficients)


def distortion_of(model: str, coefficients: Sequence[float]) -> tuple[str, Float]:
    """The pipeline's distortion model and its coefficients in full; without a model's name their number tells it."""
    given = _finite("distortion D", np.array(coefficients, dtype=np.float64))
    name = model.strip().lower()
    if name in ("", "none"):
        if not given.any():
            return "none", np.zeros(0)
        name = {4: "plumb_bob", 5: "plumb_bob", 8: "rational_polynomial"}.get(len(given), name)
    if name not in _DISTORTIONS:
        raise ValueError(
            f"distortion model {model!r} with {len(given)} coefficients, expected one of {', '.join(_DISTORTIONS)}"
        )
    ours, count = _DISTORTIONS[name]
    if given[count:].any():
        raise ValueError(f"{len(given)} distortion coefficients, {name} has {count}")
    full = np.zeros(count)
    full[: min(count, len(given))] = given[:count]
    if ours != "kannala_brandt" and not full.any():  # a fisheye without coefficients is still no pinhole camera
        return "none", np.zeros(0)
    return ours, full


def edges_of(message: Any) -> Sequence[Any]:
    """The FrameTransform messages in a FrameTransforms, or the one that `message` is."""
    transforms: Sequence[Any] = getattr(message, "transforms", (message,))
    return transforms


def edge_of(message: Any, log_ns: int) -> Edge:
    """Read one FrameTransform."""
    parent, child = frame_name(message.parent_frame_id), frame_name(message.child_frame_id)
    try:
        parent_from_child = transform_of(message.translation, message.rotation)
    except ValueError as error:
        raise ValueError(f"transform {parent} -> {child}: {error}") from None
    return Edge(stamp_of(message, log_ns), parent, child, parent_from_child)


def pose_of(message: Any, log_ns: int) -> Edge:
    """Read a PoseInFrame: the pose of `base_link`."""
    pose = transform_of(message.pose.position, message.pose.orientation)
    return Edge(stamp_of(message, log_ns), frame_name(message.frame_id), "base_link", pose)


def sweep_of(message: Any, log_ns: int) -> Sweep:
    """Read a PointCloud; the points are a view of the message's bytes where those are packed float32 x, y, z."""
    data, stride = message.data, message.point_stride
    fields = {field.name: field for field in message.fields if field.name in ("x", "y", "z")}
    if len(fields) != 3 or any(
        field.type not in _POINT_TYPES or field.offset + _POINT_TYPES[field.type].itemsize > stride
        for field in fields.values()
    ):
        raise ValueError("no float32 or float64 fields x, y, z within its point_stride")
    count = len(data) // stride
    if count > _MAX_POINTS:
        raise ValueError(f"{count} points, at most {_MAX_POINTS} are read")
    columns = [np.ndarray(count, _POINT_TYPES[fields[axis].type], data, fields[axis].offset, stride) for axis in "xyz"]
    offset = fields["x"].offset
    adjacent = [fields[axis].offset for axis in "xyz"] == [offset, offset + 4, offset + 8]
    if adjacent and all(column.dtype == np.float32 for column in columns):
        points = np.ndarray((count, 3), np.dtype("<f4"), data, offset, (stride, 4))
    else:
        points = np.stack([column.astype(np.float32) for column in columns], axis=1)
    identity = Transform(np.eye(3), np.zeros(3))
    pose = transform_of(message.pose.position, message.pose.orientation) if message.HasField("pose") else identity
    return Sweep(stamp_of(message, log_ns), frame_name(message.frame_id), pose, points)


def boxes_of(message: Any, log_ns: int) -> Iterator[AnnotatedBox]:
    """Read a SceneUpdate: the first cube of each entity, with what its metadata says of it."""
    for entity in message.entities:
        facts = {pair.key: pair.value for pair in entity.metadata}
        category = facts.get("category")
        if category is None or not entity.cubes:
            continue
        cube = entity.cubes[0]
        yield AnnotatedBox(
            stamp_of(entity, log_ns),
            frame_name(entity.frame_id),
            entity.id,
            category,
            transform_of(cube.pose.position, cube.pose.orientation),
            _finite("box size", np.array([cube.size.x, cube.size.y, cube.size.z])),
            _part(facts.get("visibility", "")),
        )


def _part(text: str) -> float:
    """A number in [0, 1]; NaN for what is none, as other data sets' words for visibility are not."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if 0 <= value <= 1 else math.nan


def transform_of(translation: Any, rotation: Any) -> Transform:
    """A Vector3 and a Quaternion, refused where they are not finite or the quaternion is far from unit length."""
    moved = _finite("translation", np.array([translation.x, translation.y, translation.z]))
    return Transform(rotation_of([rotation.x, rotation.y, rotation.z, rotation.w]), moved)


def rotation_of(xyzw: Sequence[float]) -> Float:
    """The rotation matrix of a quaternion that must have unit length."""
    quaternion = _finite("rotation", np.array(xyzw, dtype=np.float64))
    norm = float(np.linalg.norm(quaternion))
    if abs(norm - 1) > _UNIT_TOLERANCE:
        raise ValueError(f"rotation is not a rotation: its quaternion has length {norm:.4g}, expected 1")
    return rotation_from_quaternion(quaternion)


def _matrix(name: str, numbers: Sequence[float], shape: tuple[int, int]) -> Float:
    if len(numbers) != shape[0] * shape[1]:
        raise ValueError(f"matrix {name} has {len(numbers)} numbers, expected {shape[0] * shape[1]}")
    return _finite(f"matrix {name}", np.array(numbers, dtype=np.float64)).reshape(shape)


def _finite(name: str, numbers: Float) -> Float:
    bad = ~(np.abs(numbers) < _LARGEST)
    if bad.any():
        raise ValueError(f"{name} holds {numbers[bad][0]}")
    return numbers


def frame_name(name: str) -> str:
    """The name of a frame of reference, without the slash that ROS 1 put before it."""
    return str(name).removeprefix("/")
