"""Frames to the very groups that they were in when a run was recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from perception.errors import DriveError
from perception.ingest.synchroniser import Group

T = TypeVar("T")


@dataclass
class _Wanted(Generic[T]):
    tick: int
    captures_ns: Mapping[str, int]
    frames: dict[str, T] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.frames) == len(self.captures_ns)


class RecordedGroups(Generic[T]):
    """Groups frames as `ticks` says: (tick, captures by camera) in the order of the run. Other frames are of no tick.

    A drive is not that of the run if it lacks one of the frames; `DriveError` names the first that is not there.
    """

    def __init__(self, ticks: Iterable[tuple[int, Mapping[str, int]]], loops: int = 1) -> None:
        self._ticks: deque[_Wanted[T]] = deque(_Wanted(tick, captures_ns) for tick, captures_ns in ticks)
        self._of_frame = {
            (camera, capture_ns): wanted for wanted in self._ticks for camera, capture_ns in wanted.captures_ns.items()
        }
        self._loops_left = loops

    def add(self, camera: str, capture_ns: int, now_ns: int, frame: T) -> list[Group[T]]:
        """Take in a frame that arrived at `now_ns`; the groups that are whole by now."""
        wanted = self._of_frame.pop((camera, capture_ns), None)
        if wanted is None:
            return []
        wanted.frames[camera] = frame
        if wanted.whole and wanted is not self._ticks[0]:
            self._refuse(self._ticks[0])  # a later tick is whole, so what this one lacks will not come any more
        groups = []
        while self._ticks and self._ticks[0].whole:
            groups.append(self._group(self._ticks.popleft(), now_ns))
        return groups

    def flush(self) -> list[Group[T]]:
        """At the end of the drive, or of one turn of it, nothing is open; else it is not the drive of the run."""
        self._loops_left -= 1
        if self._ticks and (self._ticks[0].frames or self._loops_left <= 0):
            self._refuse(self._ticks[0])
        return []

    def faults(self) -> list[str]:
        """None: what is not wanted is not missed."""
        return []

    @staticmethod
    def _group(wanted: _Wanted[T], now_ns: int) -> Group[T]:
        order = list(wanted.captures_ns)
        frames = {camera: wanted.frames[camera] for camera in order}
        return Group(frames, dict(wanted.captures_ns), now_ns, wanted.tick)

    @staticmethod
    def _refuse(wanted: _Wanted[T]) -> None:
        camera, capture_ns = next(item for item in wanted.captures_ns.items() if item[0] not in wanted.frames)
        raise DriveError(
            f"the drive has no frame of {camera} captured at {capture_ns} ns, of which tick {wanted.tick} of the "
            "decisions was made; name the drive of that run with --replay"
        )
