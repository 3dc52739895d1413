"""``decisions.jsonl``: what enforcement did to each tick, a line each, so that a run can be had again.

``{"tick": 41, "stamp_ns": ..., "frames": {"CAM_FRONT": capture_ns, ...}, "decision": {...}}``; `decision` as in
``tracks.jsonl``, `frames` those that the tick was made of, whether anybody looked at them or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from perception.messages import Decision, Tick
from perception.output.files import AtomicFile
from perception.output.jsonl import decision_record, encode, integer, parse_decision, read_lines

DECISIONS: Final = "decisions.jsonl"


class Decided(NamedTuple):
    """One tick: the captures it was made of by camera, in nanoseconds, and what was decided about it."""

    tick: int
    stamp_ns: int
    captures_ns: dict[str, int]
    decision: Decision


class DecisionsWriter:
    """Records each tick's decision to ``decisions.jsonl``."""

    def __init__(self, directory: Path) -> None:
        self._file = AtomicFile(directory / DECISIONS)

    def record(self, tick: Tick) -> None:
        """Write one line; raises `OutputError` where the disk refuses."""
        self._file.write(decision_line(tick))
        self._file.flush()

    def abandon(self) -> None:
        """Give up a file that cannot be written to: it stays partial."""
        self._file.abandon()

    def close(self) -> None:
        """Give the file its name."""
        self._file.close()


def decision_line(tick: Tick) -> bytes:
    """The line of a tick, with its end."""
    record = {
        "tick": tick.frames.tick,
        "stamp_ns": tick.frames.stamp_ns,
        "frames": {frame.camera: frame.capture_ns for frame in tick.frames.frames},
        "decision": decision_record(tick.tracks.decision),
    }
    return encode(record).encode() + b"\n"


def read_decisions(path: Path) -> Iterator[Decided]:
    """Read a ``decisions.jsonl``, complete or partial; `ResultsError` names the first line that is damaged."""
    return read_lines(path, _decided)


def _decided(record: dict[str, Any]) -> Decided:
    frames = record["frames"]
    if not isinstance(frames, dict) or not frames:
        raise TypeError("frames: expected the captures by camera")
    captures_ns = {camera: integer(frames, camera) for camera in frames}
    decision = parse_decision(record["decision"])
    return Decided(integer(record, "tick"), integer(record, "stamp_ns"), captures_ns, decision)
