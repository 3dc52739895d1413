"""What the beginning of an MCAP recording tells: its cameras, their calibration, and where the sensors are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perception.errors import DriveError
from perception.ingest import schemas
from perception.ingest.mcap_file import DamageError, RawMessage, read_messages, read_summary
from perception.ingest.transforms import BASE, FIXED, TransformTree
from perception.messages import Camera

_SCAN_NS: Final = 5_000_000_000
_SCAN_BYTES: Final = 256 * 2**20
_POSE_WITHIN_NS: Final = 1_000_000_000
_IMAGES: Final = (schemas.IMAGE, schemas.VIDEO)


@dataclass
class Start:
    """What was found in the first 5 s of log time, or the first 256 MB of messages.

    `topics` are all topics with their schemas, as far as the file's index or its beginning tells. `searched` says, for
    an error message, how far the search went.
    """

    path: Path
    searched: str = "in its first 5 s"
    topics: dict[str, str] = field(default_factory=dict)
    calibrations: dict[str, Any] = field(default_factory=dict)
    image_frames: dict[str, str] = field(default_factory=dict)
    tree: TransformTree = field(default_factory=TransformTree)
    bad_transforms: dict[str, str] = field(default_factory=dict)
    poses_in_tf: bool = False
    time_range_ns: tuple[int, int] | None = None

    def image_topics(self) -> dict[str, str]:
        """The topic of each camera's images and the camera's name; of several topics, that of rectified images."""
        chosen: dict[str, str] = {}
        for topic, schema in self.topics.items():
            if schema in _IMAGES:
                rival = chosen.setdefault(_directory(topic), topic)
                chosen[_directory(topic)] = min(rival, topic, key=lambda t: (not _is_rectified(t), t))
        return {topic: directory.strip("/") for directory, topic in chosen.items()}

    def lidar_topic(self) -> str | None:
        """The topic of the point clouds that frame sets carry: one that calls itself LiDAR, as radars have some too."""
        clouds = [topic for topic, schema in self.topics.items() if schema == schemas.POINT_CLOUD]
        return min(clouds, key=lambda topic: "lidar" not in topic.lower(), default=None)

    def camera(self, name: str, topic: str) -> Camera:
        """A calibrated camera, or a `DriveError` that says what the recording lacks."""
        where = f"{self.path}: camera {name}"
        advice = "; or give the camera in a rig file with --rig"
        calibrated = _calibration_topic(topic)
        message = self.calibrations.get(calibrated)
        if message is None:
            missing = f"no {schemas.CALIBRATION} on {calibrated} {self.searched}"
            raise DriveError(f"{where} is not calibrated: {missing}; record it{advice}")
        try:
            calibration = schemas.calibration_of(message, rectified=_is_rectified(topic))
        except ValueError as error:
            raise DriveError(f"{where}: calibration on {calibrated}: {error}; mend it{advice}") from None
        frame = self._frame_of(name, topic)
        base_from_camera = self.tree.base_from(frame)
        if base_from_camera is None:
            unknown = self.tree.top_of(frame)
            missing = f"no transform from {BASE} to {unknown!r} on /tf {self.searched}; record it"
            bad = self.bad_transforms.get(unknown)
            raise DriveError(f"{where}: extrinsics: {f'{bad}; mend it' if bad else missing}{advice}")
        return Camera(
            name,
            calibration.width,
            calibration.height,
            calibration.intrinsics,
            base_from_camera,
            calibration.distortion_model,
            calibration.distortion,
        )

    def knows(self, name: str, topic: str) -> bool:
        """Whether a camera's calibration and its place on the vehicle were found."""
        return _calibration_topic(topic) in self.calibrations and self.tree.top_of(self._frame_of(name, topic)) == BASE

    def _frame_of(self, name: str, topic: str) -> str:
        of_calibration = schemas.frame_name(self.calibrations[_calibration_topic(topic)].frame_id)
        return of_calibration or self.image_frames.get(topic) or name

    def take_in(self, raw: RawMessage) -> None:
        """Keep what a message tells; one that cannot be parsed tells nothing, and is reported when it is played."""
        self.topics.setdefault(raw.topic, raw.schema)
        if raw.schema not in _TELLING:
            return
        try:
            message = schemas.parse(raw.schema, raw.data)
        except ValueError:
            return
        if raw.schema == schemas.CALIBRATION:
            self.calibrations.setdefault(raw.topic, message)
        elif raw.schema in _IMAGES:
            self.image_frames.setdefault(raw.topic, schemas.frame_name(message.frame_id))
        else:
            for transform in schemas.edges_of(message):
                self._take_in_transform(transform, raw.log_ns)

    def _take_in_transform(self, message: Any, log_ns: int) -> None:
        try:
            edge = schemas.edge_of(message, log_ns)
        except ValueError as error:
            self.bad_transforms.setdefault(schemas.frame_name(message.child_frame_id), str(error))
            return
        if edge.child == BASE:
            self.poses_in_tf |= edge.parent == FIXED
        elif edge.parent != FIXED:
            self.tree.add(edge.parent, edge.child, edge.parent_from_child)


_TELLING: Final = (schemas.CALIBRATION, schemas.TRANSFORM, schemas.TRANSFORMS, *_IMAGES)


def read_start(path: Path, calibrated: Collection[str]) -> Start:
    """Read as much of a recording's beginning as it takes to know its cameras, but those in `calibrated`.

    Where the file's index names all topics, reading stops as soon as each camera is known.
    """
    start = Start(path)
    with path.open("rb") as file:
        summary = read_summary(file)
        if summary is not None:
            start.topics.update(summary.schemas)
            start.time_range_ns = summary.time_range_ns
        images = start.image_topics()
        first_ns = None
        read = 0
        file.seek(0)
        try:
            for raw in read_messages(file, schemas.MESSAGES):
                first_ns = raw.log_ns if first_ns is None else first_ns
                age_ns = raw.log_ns - first_ns
                read += len(raw.data)
                if age_ns > _SCAN_NS or read > _SCAN_BYTES:
                    return start
                start.take_in(raw)
                if summary is None or not (start.poses_in_tf or age_ns > _POSE_WITHIN_NS):
                    continue
                if all(camera in calibrated or start.knows(camera, topic) for topic, camera in images.items()):
                    return start
            start.searched = "anywhere in it"
        except DamageError as error:
            start.searched = f"before byte {error.offset}, where it is damaged: {error}"
    return start


def _directory(topic: str) -> str:
    return topic.rpartition("/")[0] or topic


def _calibration_topic(image_topic: str) -> str:
    return f"{_directory(image_topic)}/camera_info"


def _is_rectified(topic: str) -> bool:
    return "rect" in topic.rpartition("/")[2].split("_")
