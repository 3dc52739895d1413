"""Small synthetic drives in the topic convention of recorded ones, for tests.

`write_drive` makes a whole one: a vehicle drives a gentle curve past a car, a truck and a pedestrian, seen by N cameras
and a LiDAR. `DriveWriter` puts single messages into a recording, for tests that need a broken or a special one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame
from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from mcap.writer import CompressionType, Writer

from perception import geometry
from perception.messages import Camera, Float, Float32, Image, Rig, Transform

START_NS: Final = 1_700_000_000_000_000_000
SECOND: Final = 1_000_000_000
OPTICAL_AXES: Final = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""The optical frame's axes in a camera body that looks along x: ``body_from_optical``."""


@dataclass(frozen=True)
class Thing:
    """An object of the synthetic world, moving straight: position (centre) and velocity in `map`."""

    id: str
    category: str
    position: tuple[float, float, float]
    velocity: tuple[float, float, float]
    size: tuple[float, float, float]
    colour: tuple[int, int, int]

    def at(self, seconds: float) -> Float:
        return np.array(self.position) + seconds * np.array(self.velocity)

    @property
    def yaw(self) -> float:
        return float(np.arctan2(self.velocity[1], self.velocity[0])) if any(self.velocity) else 0.0


THINGS: Final = (
    Thing("car-1", "vehicle.car", (15.0, 2.0, 0.8), (6.0, 0.0, 0.0), (4.5, 1.8, 1.6), (40, 40, 220)),
    Thing("truck-1", "vehicle.truck", (30.0, -5.0, 1.5), (0.0, 0.0, 0.0), (8.0, 2.5, 3.0), (220, 40, 40)),
    Thing("person-1", "human.pedestrian.adult", (12.0, -4.0, 0.9), (0.0, 1.2, 0.0), (0.6, 0.6, 1.8), (40, 220, 40)),
    Thing("barrier-1", "movable_object.barrier", (18.0, 6.0, 0.5), (0.0, 0.0, 0.0), (2.0, 0.5, 1.0), (90, 90, 90)),
)  # the last one's category is none of the pipeline's classes


@dataclass(frozen=True)
class WrittenDrive:
    """What `write_drive` wrote."""

    path: Path
    rig: Rig
    stamps_ns: tuple[int, ...]


def make_camera(
    name: str, image_size: tuple[int, int] = (320, 192), yaw_deg: float = 0.0, fov_deg: float = 90.0
) -> Camera:
    """An ideal pinhole camera 1.5 m above the ground, looking level in direction `yaw_deg` (left is positive)."""
    width, height = image_size
    focal = width / 2 / np.tan(np.deg2rad(fov_deg) / 2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    heading = geometry.rotation_about_z(np.deg2rad(yaw_deg))
    mount = Transform(heading @ OPTICAL_AXES, heading @ np.array([1.0, 0.0, 0.0]) + np.array([0.0, 0.0, 1.5]))
    return Camera(name, width, height, intrinsics, mount)


def ego_pose(seconds: float) -> Transform:
    """Where the vehicle of the synthetic drives is: 8 m/s along a curve of 100 m radius; ``map_from_base``."""
    yaw = 8.0 / 100.0 * seconds
    return Transform(geometry.rotation_about_z(yaw), np.array([100.0 * np.sin(yaw), 100.0 * (1.0 - np.cos(yaw)), 0.0]))


def render(camera: Camera, seconds: float, seed: int = 0) -> Image:
    """What a camera sees: a noisy road under a noisy sky, each thing as the filled rectangle around its box."""
    noise = np.random.default_rng(seed).integers(0, 24, (camera.height, camera.width, 1), dtype=np.uint8)
    image = np.full((camera.height, camera.width, 3), (200, 170, 140), np.uint8)
    image[camera.height // 2 :] = (110, 110, 110)
    image += noise
    camera_from_map = geometry.inverse(geometry.compose(ego_pose(seconds), camera.base_from_camera))
    by_distance = sorted(THINGS, key=lambda t: -float(np.linalg.norm(geometry.apply(camera_from_map, t.at(seconds)))))
    for thing in by_distance:
        corners = geometry.box_corners(thing.at(seconds), np.array(thing.size), thing.yaw)
        pixels, depth = geometry.project(camera, geometry.apply(camera_from_map, corners))
        if depth.min() > 0.5:
            low, high = np.clip([pixels.min(0), pixels.max(0)], -9999, 9999).round().astype(int)
            cv2.rectangle(image, low.tolist(), high.tolist(), thing.colour, cv2.FILLED)
    return image


def encode(image: Image, image_format: str = "jpeg") -> bytes:
    """An image as JPEG or PNG."""
    ok, data = cv2.imencode(".png" if image_format == "png" else ".jpg", image)
    assert ok
    return data.tobytes()


def scan(seconds: float) -> Float32:
    """A LiDAR sweep in `base_link`: rings on the ground and the corners of the things, (N, 3)."""
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 90, endpoint=False), np.arange(4.0, 40.0, 4.0))
    ground = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros_like(angle)], axis=-1).reshape(-1, 3)
    base_from_map = geometry.inverse(ego_pose(seconds))
    corners = [geometry.box_corners(thing.at(seconds), np.array(thing.size), thing.yaw) for thing in THINGS]
    return np.concatenate([ground, geometry.apply(base_from_map, np.concatenate(corners))]).astype(np.float32)


class DriveWriter:
    """Writes messages into an MCAP recording one by one; `log_ns` is the stamp where it is not given."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._channels: dict[str, int] = {}

    def message(self, topic: str, message: Any, log_ns: int) -> None:
        """Any protobuf message."""
        if topic not in self._channels:
            descriptor = message.DESCRIPTOR
            schema = self.writer.register_schema(descriptor.full_name, "protobuf", _descriptors(message))
            self._channels[topic] = self.writer.register_channel(topic, "protobuf", schema)
        data = message.SerializeToString(deterministic=True)
        self.writer.add_message(self._channels[topic], log_ns, data, log_ns)

    def image(
        self,
        camera: str,
        stamp_ns: int,
        data: bytes,
        image_format: str = "jpeg",
        *,
        log_ns: int | None = None,
        topic: str = "image_rect_compressed",
    ) -> None:
        """An encoded image; on the topic of rectified ones where no other is given."""
        message = CompressedImage(frame_id=camera, data=data, format=image_format)
        _stamp(message.timestamp, stamp_ns)
        self.message(f"/{camera}/{topic}", message, stamp_ns if log_ns is None else log_ns)

    def video(self, camera: str, stamp_ns: int, data: bytes, video_format: str = "h264") -> None:
        """One frame of a video stream."""
        message = CompressedVideo(frame_id=camera, data=data, format=video_format)
        _stamp(message.timestamp, stamp_ns)
        self.message(f"/{camera}/video", message, stamp_ns)

    def calibration(
        self, camera: Camera, stamp_ns: int, distortion_model: str = "", distortion: Sequence[float] = ()
    ) -> None:
        """A camera's intrinsics, as K and as P."""
        k = camera.intrinsics
        message = CameraCalibration(
            frame_id=camera.name,
            width=camera.width,
            height=camera.height,
            distortion_model=distortion_model,
            D=distortion,
            K=k.ravel(),
            R=np.eye(3).ravel(),
            P=np.hstack([k, np.zeros((3, 1))]).ravel(),
        )
        _stamp(message.timestamp, stamp_ns)
        self.message(f"/{camera.name}/camera_info", message, stamp_ns)

    def transform(self, parent: str, child: str, parent_from_child: Transform, stamp_ns: int) -> None:
        """A transform on /tf."""
        message = FrameTransform(parent_frame_id=parent, child_frame_id=child)
        _stamp(message.timestamp, stamp_ns)
        _fill_transform(message.translation, message.rotation, parent_from_child)
        self.message("/tf", message, stamp_ns)

    def pose(self, frame: str, pose: Transform, stamp_ns: int) -> None:
        """The vehicle's pose on /pose."""
        message = PoseInFrame(frame_id=frame)
        _stamp(message.timestamp, stamp_ns)
        _fill_transform(message.pose.position, message.pose.orientation, pose)
        self.message("/pose", message, stamp_ns)

    def cloud(self, frame: str, points: Float32, stamp_ns: int) -> None:
        """A LiDAR sweep: x, y, z as float32, on /LIDAR_TOP."""
        message = PointCloud(frame_id=frame, point_stride=12, data=points.astype("<f4").tobytes())
        message.pose.orientation.w = 1.0
        for offset, name in enumerate("xyz"):
            message.fields.add(name=name, offset=4 * offset, type=PackedElementField.FLOAT32)
        _stamp(message.timestamp, stamp_ns)
        self.message("/LIDAR_TOP", message, stamp_ns)

    def annotations(
        self,
        stamp_ns: int,
        frame: str = "base_link",
        things: Sequence[Thing] = THINGS,
        frame_from_map: Transform | None = None,
    ) -> None:
        """Ground truth on /markers/annotations, in `base_link`, in `map`, or in the frame that is given."""
        seconds = (stamp_ns - START_NS) / SECOND
        if frame_from_map is None:
            frame_from_map = geometry.inverse(ego_pose(seconds)) if frame == "base_link" else geometry.IDENTITY
        update = SceneUpdate()
        for thing in things:
            entity = update.entities.add(frame_id=frame, id=thing.id)
            _stamp(entity.timestamp, stamp_ns)
            entity.metadata.add(key="category", value=thing.category)
            cube = entity.cubes.add()
            box = Transform(geometry.rotation_about_z(thing.yaw), thing.at(seconds))
            _fill_transform(cube.pose.position, cube.pose.orientation, geometry.compose(frame_from_map, box))
            cube.size.x, cube.size.y, cube.size.z = thing.size
        self.message("/markers/annotations", update, stamp_ns)


@contextmanager
def open_writer(path: Path, chunk_size: int = 64 * 1024) -> Iterator[DriveWriter]:
    """A recording to put messages into; small chunks, so that a short drive has several."""
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_size, compression=CompressionType.ZSTD)
        writer.start()
        yield DriveWriter(writer)
        writer.finish()  # type: ignore[no-untyped-call]


def write_drive(
    path: Path,
    *,
    cameras: Sequence[str] = ("CAM_FRONT",),
    ticks: int = 5,
    rate_hz: float = 10.0,
    image_size: tuple[int, int] = (320, 192),
    image_format: str = "jpeg",
    skew_ns: int = 0,
    poses: bool = True,
    lidar: bool = True,
    truth: bool = True,
) -> WrittenDrive:
    """Write a whole drive; the cameras look evenly all round, the first one forward.

    Camera i fires `skew_ns` times i after the tick's stamp. Poses (/tf), sweeps (/LIDAR_TOP) and ground truth
    (/markers/annotations, in base_link) bear the tick's stamp.
    """
    names = list(cameras)
    rig = {name: make_camera(name, image_size, 360.0 * i / len(names)) for i, name in enumerate(names)}
    stamps = tuple(START_NS + round(tick * SECOND / rate_hz) for tick in range(ticks))
    with open_writer(path) as drive:
        for tick, stamp in enumerate(stamps):
            seconds = (stamp - START_NS) / SECOND
            if poses:
                drive.transform("map", "base_link", ego_pose(seconds), stamp)
            if lidar:
                drive.transform("base_link", "LIDAR_TOP", geometry.IDENTITY, stamp)
                drive.cloud("LIDAR_TOP", scan(seconds), stamp)
            if truth:
                drive.annotations(stamp)
            for i, camera in enumerate(rig.values()):
                capture = stamp + i * skew_ns
                drive.transform("base_link", camera.name, camera.base_from_camera, capture)
                drive.calibration(camera, capture)
                image = render(camera, (capture - START_NS) / SECOND, seed=tick * len(names) + i)
                drive.image(camera.name, capture, encode(image, image_format), image_format)
    return WrittenDrive(path, rig, stamps)


def _stamp(timestamp: Any, stamp_ns: int) -> None:
    timestamp.seconds, timestamp.nanos = divmod(stamp_ns, SECOND)


def _fill_transform(translation: Any, rotation: Any, transform: Transform) -> None:
    translation.x, translation.y, translation.z = (float(v) for v in transform.translation)
    rotation.x, rotation.y, rotation.z, rotation.w = (
        float(v) for v in geometry.quaternion_from_rotation(transform.rotation)
    )


def _descriptors(message: Any) -> bytes:
    """The FileDescriptorSet of a message, which is what an MCAP schema record holds."""
    files = FileDescriptorSet()
    done: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in done:
            done.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            file.CopyToProto(files.file.add())

    add(message.DESCRIPTOR.file)
    return files.SerializeToString(deterministic=True)
