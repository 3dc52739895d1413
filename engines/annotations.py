"""What a drive says of its frames besides what the pipeline reads: the boxes to be found, and tags.

Drives of `engines.world` hold both, exactly: see `engines.world.drive`. Of others the boxes follow from their ground
truth in 3-D, as `perception.truth` sees it, and tags have to be given. Others may have outlines on the same topics:
nuscenes2mcap draws its boxes there, in the images of the LiDAR's time. Ours are known by their ``visibility``.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from google.protobuf.message import DecodeError
from mcap.records import Channel, Message

from engines.accuracy import TrueBoxes, too_hard
from perception.errors import DriveError
from perception.ingest.drive import Drive
from perception.ingest.formats import HEAD_BYTES, is_mcap
from perception.ingest.mcap_file import DamageError, read_records
from perception.messages import CLASSES, Transform
from perception.truth import RigView, TruthTimeline

_TAGS: Final = "/tags"
_BOXES: Final = "/annotations"
_MOUTH_NS: Final = 1_000_000_000
_MOUTH: Final = "tunnel_mouth"
_NEAREST_NS: Final = 500_000_000


class Annotations:
    """Tags and boxes of one drive by the time of capture."""

    def __init__(self, path: Path, drive: Drive) -> None:
        self._boxes: dict[tuple[str, int], TrueBoxes] = {}
        self._tags: list[tuple[int, Mapping[str, set[str]]]] = []
        topic = ""
        try:
            for topic, stamp_ns, data in _messages(path, drive):
                if topic == _TAGS:
                    self._tags.append((stamp_ns, _tags_of(data)))
                else:
                    camera = topic.removeprefix("/").removesuffix(_BOXES)
                    boxes = _boxes_of(data)
                    if boxes is not None:
                        self._boxes[camera, stamp_ns] = boxes
        except (ValueError, KeyError, DecodeError) as error:
            raise DriveError(f"{path}: a message on {topic} cannot be understood: {error}") from None
        self._tags.sort(key=lambda entry: entry[0])
        self.tag_keys = frozenset(key for _, tags in self._tags for key in tags)
        """Of all tags in the drive."""
        if not any(len(boxes.labels) for boxes in self._boxes.values()):
            self._boxes.clear()  # messages without an outline do not tell whose they are
        self._timeline = TruthTimeline([] if self._boxes else drive.truth())
        self._view = RigView(drive.rig)

    def boxes(self, camera: str, capture_ns: int, map_from_base: Transform | None) -> TrueBoxes | None:
        """The boxes in one image; None where the drive has no ground truth for it."""
        if self._boxes:
            return self._boxes.get((camera, capture_ns))
        truth = self._timeline.at(capture_ns, map_from_base)
        if truth is None:
            return None
        seen = self._view.of_camera(camera, truth)
        inside = np.flatnonzero(np.isfinite(seen.boxes).all(axis=1))
        return TrueBoxes(seen.boxes[inside].astype(np.float32), truth.labels[inside], ~seen.visible[inside])

    def tags(self, capture_ns: int) -> dict[str, set[str]]:
        """The tags recorded nearest to a time; within a second of a change of scene, `tunnel_mouth` is one of them."""
        after = bisect_left(self._tags, capture_ns, key=lambda entry: entry[0])
        near = self._tags[max(after - 1, 0) : after + 1]
        if not near:
            return {}
        stamp_ns, nearest = min(near, key=lambda entry: abs(entry[0] - capture_ns))
        if abs(stamp_ns - capture_ns) > _NEAREST_NS:
            return {}
        tags = {key: set(values) for key, values in nearest.items()}
        around = [values.get("scene") for stamp, values in self._tags if abs(stamp - capture_ns) <= _MOUTH_NS]
        if any(scene != nearest.get("scene") for scene in around):
            tags.setdefault("scene", set()).add(_MOUTH)
        return tags


def _messages(path: Path, drive: Drive) -> Iterator[tuple[str, int, bytes]]:
    """The messages with tags and boxes of a recording, up to where it is damaged: topic, log time, data."""
    if not _is_recording(path):
        return
    wanted = {_TAGS, *(f"/{camera}{_BOXES}" for camera in drive.rig)}
    topics: dict[int, str] = {}
    try:
        with path.open("rb") as file:
            for _, record in read_records(file):  # not `read_messages`: tags are no protobuf
                if isinstance(record, Channel):
                    topics[record.id] = record.topic
                elif isinstance(record, Message) and topics.get(record.channel_id) in wanted:
                    yield topics[record.channel_id], record.log_time, record.data
    except DamageError:
        return  # so does the replay
    except OSError as error:
        raise DriveError(f"{path}: its tags and boxes cannot be read: {error.strerror}") from None


def _is_recording(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_mcap(file.read(HEAD_BYTES))


def _tags_of(data: bytes) -> dict[str, set[str]]:
    tags = json.loads(data)
    if not isinstance(tags, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 (one error for whatever is wrong with the data)
    return {str(key): {str(value)} for key, value in tags.items()}


def _boxes_of(data: bytes) -> TrueBoxes | None:
    """The boxes of a message; None where it has outlines and none of them is ours."""
    message: Any = ImageAnnotations.FromString(data)
    boxes, labels, visibility = [], [], []
    outlines = [(outline, {pair.key: pair.value for pair in outline.metadata}) for outline in message.points]
    ours = [(outline, facts) for outline, facts in outlines if "visibility" in facts]
    if outlines and not ours:
        return None
    for outline, facts in ours:
        if facts.get("category") not in CLASSES:
            continue
        corners = np.array([(point.x, point.y) for point in outline.points])
        boxes.append([*corners.min(axis=0), *corners.max(axis=0)])
        labels.append(CLASSES.index(facts["category"]))
        visibility.append(float(facts["visibility"]))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return TrueBoxes(array, np.array(labels, np.int32), too_hard(array, np.array(visibility, np.float32)))
