"""``tracks.jsonl`` and ``detections.jsonl``: one compact JSON object a line, and back.

Both hold nothing of the machine's clock and every float is rounded to a fixed number of decimals, so the same drive
and config give the same bytes. Positions, velocities and sizes in metres and seconds along the axes of `base_link`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from perception import geometry
from perception.errors import ResultsError
from perception.messages import (
    CLASSES,
    UNDISTURBED,
    Decision,
    Detections,
    Float,
    Tick,
    Track,
    TrackSet,
    Transform,
)
from perception.output.files import AtomicFile

TRACKS: Final = "tracks.jsonl"
DETECTIONS: Final = "detections.jsonl"

_DECIMALS: Final = 4  # 0.1 mm, 0.1 mrad, and a variance of (1 cm)^2
_ROTATION_DECIMALS: Final = 7  # of a quaternion: 0.02 mm at 100 m
_PIXEL_DECIMALS: Final = 2
_UPPER: Final = np.triu_indices(4)
_MAX_LINE_BYTES: Final = 16_000_000
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

T = TypeVar("T")


class TracksWriter:
    """Publishes track sets to ``tracks.jsonl``, a line each, flushed so that a reader can follow."""

    def __init__(self, directory: Path) -> None:
        self._file = AtomicFile(directory / TRACKS)

    def publish(self, tracks: TrackSet) -> None:
        """Write one line; raises `OutputError` where the disk refuses."""
        self._file.write(tracks_line(tracks))
        self._file.flush()

    def record(self, tick: Tick) -> None:
        """The same between ticks, for those who record and do not publish."""
        self.publish(tick.tracks)

    def close(self) -> None:
        """Give the file its name."""
        self._file.close()


class DetectionsWriter:
    """Records what each camera detected to ``detections.jsonl``: a line per tick and camera."""

    def __init__(self, directory: Path) -> None:
        self._file = AtomicFile(directory / DETECTIONS)

    def record(self, tick: Tick) -> None:
        """Write one line per camera that had a frame."""
        for found in tick.detections:
            self._file.write(_detections_line(tick.frames.tick, found))
        self._file.flush()

    def close(self) -> None:
        """Give the file its name."""
        self._file.close()


def read_tracks(path: Path) -> Iterator[TrackSet]:
    """Read a ``tracks.jsonl``, complete or partial; `ResultsError` names the first line that is damaged."""
    return read_lines(path, _track_set)


def read_detections(path: Path) -> Iterator[tuple[int, Detections]]:
    """Read a ``detections.jsonl`` as (tick, detections of one camera); `ResultsError` names a damaged line."""
    return read_lines(path, _detections)


def tracks_line(tracks: TrackSet) -> bytes:
    """A track set as its line in ``tracks.jsonl``, newline included."""
    head = {
        "tick": tracks.tick,
        "stamp_ns": tracks.stamp_ns,
        "skew_ms": round(tracks.skew_ns * 1e-6, 6),
        "missing": tracks.missing,
        "decision": decision_record(tracks.decision),
        "map_from_base": _pose_record(tracks.map_from_base),
    }
    return f'{encode(head)[:-1]},"tracks":[{",".join(_track_texts(tracks.tracks))}]}}\n'.encode()


def decision_record(decision: Decision) -> dict[str, Any]:
    """A decision as JSON has it; `parse_decision` gives it back to the nanosecond."""
    return {
        "level": decision.level,
        "dropped": decision.dropped,
        "skipped": decision.skipped,
        "late": decision.late,
        "deadline_met": decision.deadline_met,
        "age_ms": round(decision.age_ns * 1e-6, 6),
    }


def _pose_record(pose: Transform | None) -> dict[str, list[float]] | None:
    if pose is None:
        return None
    return {
        "translation_m": _rounded(pose.translation, _DECIMALS),
        "rotation_xyzw": _rounded(geometry.quaternion_from_rotation(pose.rotation), _ROTATION_DECIMALS),
    }


_FLOAT: Final = f"%.{_DECIMALS}f"
_THREE: Final = f"[{_FLOAT},{_FLOAT},{_FLOAT}]"
# Inside the deadline: for forty tracks this template takes half as long as json.dumps.
_TRACK: Final = (
    f'{{"id":%d,"class":"%s","score":{_FLOAT},"position_m":{_THREE},"velocity_mps":{_THREE},"size_m":{_THREE},'
    f'"yaw_rad":{_FLOAT},"covariance":[{",".join([_FLOAT] * 10)}],"age_s":{_FLOAT},"since_seen_s":{_FLOAT},'
    '"seen_by":%s}'
)


def _track_texts(tracks: tuple[Track, ...]) -> list[str]:
    if not tracks:
        return []
    scalars = np.array([(t.score, t.yaw, t.age_s, t.since_seen_s) for t in tracks], np.float64)
    vectors = np.array([(t.position, t.velocity, t.size) for t in tracks], np.float64).reshape(-1, 9)
    upper = np.array([t.covariance for t in tracks], np.float64)[:, _UPPER[0], _UPPER[1]]
    numbers = np.concatenate([scalars[:, :1], vectors, scalars[:, 1:2], upper, scalars[:, 2:]], axis=1)
    if not np.isfinite(numbers).all():
        raise ValueError("a track holds a number that is not finite; JSON has none")
    return [
        _TRACK % (track.id, CLASSES[track.label], *row, _names_text(track.seen_by))
        for track, row in zip(tracks, _rounded(numbers, _DECIMALS), strict=True)
    ]


@lru_cache(maxsize=256)
def _names_text(names: tuple[str, ...]) -> str:
    return encode(names)


def _detections_line(tick: int, found: Detections) -> bytes:
    record = {
        "tick": tick,
        "camera": found.camera,
        "capture_ns": found.capture_ns,
        "boxes": _rounded(found.boxes, _PIXEL_DECIMALS),
        "scores": _rounded(found.scores, _DECIMALS),
        "classes": [CLASSES[label] for label in found.labels],
    }
    return encode(record).encode() + b"\n"


def _rounded(numbers: Any, decimals: int) -> Any:
    """Nested lists of floats with no negative zero."""
    return (np.round(np.asarray(numbers, np.float64), decimals) + 0.0).tolist()


def read_lines(path: Path, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """Parse a file line by line; `ResultsError` names the first line that `parse` does not take, and why."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                yield _parsed(path, number, line, parse)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}; is that the directory of a run?") from None


def _parsed(path: Path, number: int, line: bytes, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        return parse(json.loads(line, parse_constant=_refuse))
    except KeyError as error:
        problem = f"{error} is missing"
    except RecursionError:
        problem = "nested too deeply"
    except (ValueError, TypeError, OverflowError) as error:
        problem = str(error) if line.endswith(b"\n") else "cut off"
    raise ResultsError(f"{path}, line {number}: damaged: {problem}; run the drive again to get a whole file")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _track_set(record: dict[str, Any]) -> TrackSet:
    pose = record["map_from_base"]
    return TrackSet(
        tick=integer(record, "tick"),
        stamp_ns=integer(record, "stamp_ns"),
        skew_ns=round(_number(record, "skew_ms") * 1e6),
        missing=_names(record, "missing"),
        tracks=tuple(_track(track) for track in record["tracks"]),
        map_from_base=None if pose is None else _pose(pose),
        decision=parse_decision(record["decision"]) if "decision" in record else UNDISTURBED,
    )


def parse_decision(record: dict[str, Any]) -> Decision:
    """What `decision_record` made; raises `KeyError`, `ValueError` or `TypeError` for anything else."""
    return Decision(
        level=integer(record, "level"),
        dropped=_truth(record, "dropped"),
        skipped=_names(record, "skipped"),
        late=_names(record, "late"),
        deadline_met=_truth(record, "deadline_met"),
        age_ns=round(_number(record, "age_ms") * 1e6),
    )


def _pose(record: dict[str, Any]) -> Transform:
    quaternion = _numbers(record, "rotation_xyzw", (4,))
    if not 0.9 < np.linalg.norm(quaternion) < 1.1:
        raise ValueError("rotation_xyzw is no unit quaternion")
    return Transform(geometry.rotation_from_quaternion(quaternion), _numbers(record, "translation_m", (3,)))


def _track(record: dict[str, Any]) -> Track:
    covariance = np.zeros((4, 4))
    covariance[_UPPER] = _numbers(record, "covariance", (10,))
    return Track(
        id=integer(record, "id"),
        label=_label(record["class"]),
        score=_number(record, "score"),
        position=_numbers(record, "position_m", (3,)),
        velocity=_numbers(record, "velocity_mps", (3,)),
        size=_numbers(record, "size_m", (3,)),
        yaw=_number(record, "yaw_rad"),
        covariance=covariance + np.triu(covariance, 1).T,
        age_s=_number(record, "age_s"),
        since_seen_s=_number(record, "since_seen_s"),
        seen_by=_names(record, "seen_by"),
    )


def _detections(record: dict[str, Any]) -> tuple[int, Detections]:
    labels = np.array([_label(name) for name in record["classes"]], np.int32)
    found = Detections(
        camera=str(record["camera"]),
        capture_ns=integer(record, "capture_ns"),
        boxes=_numbers(record, "boxes", (len(labels), 4)).astype(np.float32),
        scores=_numbers(record, "scores", (len(labels),)).astype(np.float32),
        labels=labels,
    )
    return integer(record, "tick"), found


def integer(record: dict[str, Any], key: str) -> int:
    """An integer that a record must hold; raises `KeyError` or `ValueError`."""
    value = record[key]
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{key}: expected an integer of 64 bits, got {str(value)[:40]}")
    return value


def _truth(record: dict[str, Any], key: str) -> bool:
    value = record[key]
    if not isinstance(value, bool):
        raise TypeError(f"{key}: expected true or false, got {str(value)[:40]}")
    return value


def _number(record: dict[str, Any], key: str) -> float:
    value = record[key]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{key}: expected a number, got {str(value)[:40]}")
    return float(value)


def _numbers(record: dict[str, Any], key: str, shape: tuple[int, ...]) -> Float:
    numbers = np.array(record[key], np.float64)
    if numbers.size == math.prod(shape) == 0:
        return np.zeros(shape)
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise ValueError(f"{key}: expected {' x '.join(map(str, shape))} numbers")
    return numbers


def _label(name: Any) -> int:
    if name not in CLASSES:
        raise ValueError(f"unknown class {str(name)[:40]!r}")
    return CLASSES.index(name)


def _names(record: dict[str, Any], key: str) -> tuple[str, ...]:
    names = record[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{key}: expected a list of names")
    return tuple(names)
