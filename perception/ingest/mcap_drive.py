"""A drive recorded as MCAP with Foxglove's protobuf schemas, in the topic convention of nuscenes2mcap."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perception.errors import DriveError
from perception.faults import Faults
from perception.geometry import compose, inverse
from perception.ingest import schemas
from perception.ingest.drive import Packet
from perception.ingest.formats import image_format
from perception.ingest.mcap_file import DamageError, RawMessage, read_messages
from perception.ingest.mcap_start import read_start
from perception.ingest.poses import PoseBuffer
from perception.ingest.rig import load_rig
from perception.ingest.schemas import AnnotatedBox
from perception.ingest.transforms import BASE, FIXED, TransformTree
from perception.ingest.truth import label_of, truth_of
from perception.messages import PointCloud, Rig, Transform, Truth

_TRUTH_TOPIC: Final = "/markers/annotations"
_LOOK_AHEAD_NS: Final = 1_000_000_000
_LOOK_AHEAD_BYTES: Final = 256 * 2**20
_SWEEP_AGE_NS: Final = 500_000_000
_MAX_SWEEPS: Final = 64
_MAX_SWEEP_BYTES: Final = 256 * 2**20
_MAX_STAMP: Final = 2**63 - 1


@dataclass(frozen=True)
class _Surroundings:
    """What has been read so far besides the images: where sensors and vehicle are, and the latest sweeps."""

    tree: TransformTree
    lidar: str | None = None
    poses: PoseBuffer = field(default_factory=PoseBuffer)
    sweeps: deque[PointCloud] = field(default_factory=lambda: deque(maxlen=_MAX_SWEEPS))

    def add_sweep(self, sweep: PointCloud) -> None:
        self.sweeps.append(sweep)
        while len(self.sweeps) > 1 and sum(kept.points.nbytes for kept in self.sweeps) > _MAX_SWEEP_BYTES:
            self.sweeps.popleft()

    def sweep_at(self, stamp_ns: int) -> PointCloud | None:
        usable = [sweep for sweep in self.sweeps if stamp_ns - _SWEEP_AGE_NS <= sweep.stamp_ns <= stamp_ns]
        return max(usable, key=lambda sweep: sweep.stamp_ns, default=None)

    def base_from(self, frame: str, stamp_ns: int) -> Transform | None:
        if frame != FIXED:
            return self.tree.base_from(frame)
        map_from_base = self.poses.at(stamp_ns)
        return None if map_from_base is None else inverse(map_from_base)


class McapDrive:
    """Reads an MCAP recording as a stream; raises `DriveError` where it does not hold what a replay needs.

    The rig is read at opening, from the first 5 s (or 256 MB) of the recording; the first calibration of each camera
    and the first transform to each frame hold for the whole drive. A camera is what has images: its name is their
    topic without the last part. Cameras that the rig file names are taken from there instead.

    Messages are given back in the order of their log time, where they are out of order by up to a second. So poses
    and sweeps are known a second ahead of the images: a pose is interpolated also when the next one was recorded
    after the image. An image carries the latest sweep that is not newer than itself and at most 0.5 s older.
    """

    def __init__(self, path: Path, rig_path: Path | None = None) -> None:
        self._path = path
        self._faults = Faults()
        calibrated = load_rig(rig_path).to_rig() if rig_path else {}
        start = read_start(path, calibrated)
        self._images = start.image_topics()
        if not self._images:
            topics = ", ".join(f"{topic} ({schema})" for topic, schema in list(start.topics.items())[:8]) or "none"
            raise DriveError(
                f"{path}: nothing to replay: no {schemas.IMAGE} or {schemas.VIDEO} in protobuf {start.searched}; "
                f"its topics: {topics}"
            )
        self._topics = frozenset(start.topics)
        self._tree = start.tree
        self._lidar = start.lidar_topic()
        self._poses_in_tf = start.poses_in_tf
        self.rig: Rig = {
            camera: calibrated.get(camera) or start.camera(camera, topic) for topic, camera in self._images.items()
        }
        self.time_range_ns = start.time_range_ns
        self.skipped_categories: Counter[str] = Counter()
        """Annotated boxes that `truth` left out, as their category is none of the pipeline's classes."""

    def faults(self) -> Sequence[str]:
        """What was wrong with the data read so far, a line each, with the place."""
        return self._faults.lines()

    def packets(self) -> Iterator[Packet]:
        """Read the images in the order of their log time; see `Drive`."""
        known = _Surroundings(self._tree.copy(), self._lidar)
        for raw in self._read(self._images, known):
            message = self._parse(raw)
            if message is None:
                continue
            capture_ns = schemas.stamp_of(message, raw.log_ns)
            data = message.data
            yield Packet(
                self._images[raw.topic],
                capture_ns,
                raw.log_ns,
                image_format(data) or message.format,
                data,
                raw.topic,
                known.poses.at(capture_ns),
                known.sweep_at(capture_ns),
            )

    def truth(self) -> Iterator[Truth]:
        """Read the boxes of the pipeline's classes, one `Truth` per annotated stamp; see `Drive`."""
        self.skipped_categories.clear()
        known = _Surroundings(self._tree.copy())
        for raw in self._read((_TRUTH_TOPIC,), known):
            message = self._parse(raw)
            if message is None:
                continue
            boxes = self._boxes(raw, message, known)
            for stamp_ns in sorted(boxes) or [raw.log_ns]:
                yield truth_of(stamp_ns, boxes.get(stamp_ns, ()), known.poses.at(stamp_ns))

    def _read(self, topics: Container[str], known: _Surroundings) -> Iterator[RawMessage]:
        """Yield the messages on these topics by log time, a second behind what `known` has taken in."""
        waiting: list[tuple[int, int, RawMessage]] = []
        waiting_bytes = 0
        log_ns = 0
        try:
            with self._path.open("rb") as file:
                for number, raw in enumerate(read_messages(file, schemas.MESSAGES)):
                    if raw.log_ns > _MAX_STAMP:
                        self._fault(raw, "log time beyond int64 nanoseconds")
                        continue
                    log_ns = raw.log_ns
                    if raw.topic in topics:
                        heapq.heappush(waiting, (log_ns, number, raw))
                        waiting_bytes += len(raw.data)
                    else:
                        self._take_in(raw, known)
                    while waiting and (waiting[0][0] <= log_ns - _LOOK_AHEAD_NS or waiting_bytes > _LOOK_AHEAD_BYTES):
                        ready = heapq.heappop(waiting)[2]
                        waiting_bytes -= len(ready.data)
                        yield ready
        except DamageError as error:
            self._faults.once(
                f"{self._path}: damaged at byte {error.offset}, after log time {_seconds(log_ns)}: {error}; "
                "all before it was read"
            )
        except OSError as error:
            self._faults.once(f"{self._path}: cannot be read after log time {_seconds(log_ns)}: {error.strerror}")
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _take_in(self, raw: RawMessage, known: _Surroundings) -> None:
        try:
            if raw.schema in (schemas.TRANSFORM, schemas.TRANSFORMS):
                for transform in schemas.edges_of(schemas.parse(raw.schema, raw.data)):
                    self._take_in_edge(raw, schemas.edge_of(transform, raw.log_ns), known)
            elif raw.schema == schemas.POSE and not self._poses_in_tf:
                pose = schemas.pose_of(schemas.parse(raw.schema, raw.data), raw.log_ns)
                if pose.parent == FIXED:
                    known.poses.add(pose.stamp_ns, pose.parent_from_child)
            elif raw.schema == schemas.POINT_CLOUD and raw.topic == known.lidar:
                known.add_sweep(_sweep(raw, known))
            elif raw.schema in (schemas.IMAGE, schemas.VIDEO) and raw.topic not in self._topics:
                self._fault(raw, "a camera that was not there in the beginning, when the rig was read: left out")
        except ValueError as error:
            self._fault(raw, str(error))

    def _take_in_edge(self, raw: RawMessage, edge: schemas.Edge, known: _Surroundings) -> None:
        if edge.child == BASE:
            if edge.parent == FIXED:
                known.poses.add(edge.stamp_ns, edge.parent_from_child)
        elif edge.parent != FIXED and not known.tree.add(edge.parent, edge.child, edge.parent_from_child):
            self._fault(raw, f"the transform {edge.parent} -> {edge.child} changed: the first one is kept")

    def _boxes(
        self, raw: RawMessage, message: Any, known: _Surroundings
    ) -> dict[int, list[tuple[AnnotatedBox, int, Transform]]]:
        by_stamp: dict[int, list[tuple[AnnotatedBox, int, Transform]]] = {}
        try:
            for box in schemas.boxes_of(message, raw.log_ns):
                at_stamp = by_stamp.setdefault(box.stamp_ns, [])
                label = label_of(box.category)
                base_from_frame = known.base_from(box.frame, box.stamp_ns)
                if label is None:
                    self.skipped_categories[box.category] += 1
                elif base_from_frame is None:
                    self._fault(raw, f"no transform from {BASE} to the annotations' frame {box.frame!r}")
                else:
                    at_stamp.append((box, label, base_from_frame))
        except ValueError as error:
            self._fault(raw, str(error))
        return by_stamp

    def _parse(self, raw: RawMessage) -> Any:
        try:
            return schemas.parse(raw.schema, raw.data)
        except ValueError as error:
            self._fault(raw, str(error))
            return None

    def _fault(self, raw: RawMessage, reason: str) -> None:
        self._faults.add((raw.topic, reason), f"{self._path}: {raw.topic} at log time {_seconds(raw.log_ns)}: {reason}")


def _sweep(raw: RawMessage, known: _Surroundings) -> PointCloud:
    sweep = schemas.sweep_of(schemas.parse(raw.schema, raw.data), raw.log_ns)
    base_from_frame = known.tree.base_from(sweep.frame)
    if base_from_frame is None:
        raise ValueError(f"no transform from {BASE} to its frame {sweep.frame!r}")
    return PointCloud(sweep.stamp_ns, sweep.points, compose(base_from_frame, sweep.frame_from_sensor))


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d} s"
