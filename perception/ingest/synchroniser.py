"""Frames of several cameras to the groups that make up a tick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from perception.config import SyncConfig
from perception.faults import Faults

T = TypeVar("T")

_MAX_STAMP: Final = 2**63 - 1
_PART_OF_PERIOD: Final = 0.75
_MAX_MISSED: Final = 3


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """The frames of one tick by camera, in the rig's order; `closed_ns` is when no more were waited for.

    `tick` is its number, where that is given from elsewhere.
    """

    frames: dict[str, T]
    captures_ns: dict[str, int]
    closed_ns: int
    tick: int | None = None

    @property
    def stamp_ns(self) -> int:
        """The newest capture."""
        return max(self.captures_ns.values())

    @property
    def skew_ns(self) -> int:
        """Newest capture minus oldest."""
        return self.stamp_ns - min(self.captures_ns.values())


class Grouping(Protocol[T]):
    """How the frames of a drive become groups, as they are read."""

    def add(self, camera: str, capture_ns: int, now_ns: int, frame: T) -> list[Group[T]]:
        """Take in a frame that arrived at `now_ns`; the groups that are closed by now."""

    def flush(self) -> list[Group[T]]:
        """The groups that are still open at the end of the drive; of each turn, where it is looped."""

    def faults(self) -> list[str]:
        """What was dropped so far, a line for each camera and reason."""


class Synchroniser(Generic[T]):
    """Groups frames that were captured within `window_ms`; pure: it has no clock, and `now_ns` drives it.

    One group is open at a time. It closes when all cameras are in, when a frame of a later tick comes, or when the
    window has passed since the arrival of its first frame: a missing camera is missing, not waited for. The stamps
    of successive groups rise. Where cameras run so fast that the window would reach into the next tick, it is cut to
    three quarters of their period.

    Frames are dropped, and counted, whose stamp is beyond int64, negative, a repetition or a step back of their
    camera's; who jump more than `max_gap_s` ahead of all others, unless the next frame confirms that time went on
    there; and who come after their tick has closed.

    `capture_ns` is on the time line of the data, `now_ns` on that of arrivals; the two need not agree.
    """

    def __init__(self, cameras: Sequence[str], config: SyncConfig) -> None:
        self._cameras = tuple(cameras)
        self._config = config
        self._window_ns = round(config.window_ms * 1e6)
        self._max_gap_ns = round(config.max_gap_s * 1e9)
        self._faults = Faults()
        self._last_ns: dict[str, int] = {}
        self._period_ns: dict[str, int] = {}
        self._usual_period_ns: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self._newest_ns: int | None = None
        self._jumped_to_ns: int | None = None
        self._open: dict[str, T] = {}
        self._open_captures: dict[str, int] = {}
        self._opened_ns = 0
        self._closed_captures: dict[str, int] = {}

    def add(self, camera: str, capture_ns: int, now_ns: int, frame: T) -> list[Group[T]]:
        """Take in a frame that arrived at `now_ns`; the groups that are closed by now, two at most."""
        groups = self.expire(now_ns)
        problem = self._stamp_problem(camera, capture_ns) or self._lateness(camera, capture_ns)
        if problem:
            kind, line = problem
            self._faults.add((camera, kind), f"{camera}: frame dropped, captured at {capture_ns} ns: {line}")
            return groups
        if self._open and (camera in self._open or not self._together(self._open_captures, capture_ns)):
            groups.append(self._close(now_ns))
        if not self._open:
            self._opened_ns = now_ns
        self._open[camera] = frame
        self._open_captures[camera] = capture_ns
        if len(self._open) == len(self._cameras):
            groups.append(self._close(now_ns))
        return groups

    def expire(self, now_ns: int) -> list[Group[T]]:
        """Close the open group if its window has passed: to be called now and then where no frame may come."""
        if self._open and now_ns > self._opened_ns + self._window_ns:
            return self.flush()
        return []

    def flush(self) -> list[Group[T]]:
        """Close the open group at the end of its window, as nothing more will come."""
        return [self._close(self._opened_ns + self._window_ns)] if self._open else []

    @property
    def open(self) -> Mapping[str, T]:
        """The frames of the open group so far, by camera."""
        return self._open

    @property
    def opened_ns(self) -> int | None:
        """When the first frame of the open group arrived; None where no group is open."""
        return self._opened_ns if self._open else None

    def due(self) -> list[str]:
        """The cameras that the open group lacks and that should still come.

        Who is slower than the others is not due before its period is over; who did not come in three ticks on end in
        which it was due is due no longer, until it comes.
        """
        if not self._open:
            return []
        stamp_ns = max(self._open_captures.values())
        return [camera for camera in self._cameras if camera not in self._open and self._due(camera, stamp_ns)]

    def faults(self) -> list[str]:
        """What was dropped so far, a line for each camera and reason."""
        return self._faults.lines()

    def _close(self, now_ns: int) -> Group[T]:
        order = [camera for camera in self._cameras if camera in self._open]
        captures_ns = {camera: self._open_captures[camera] for camera in order}
        group = Group({camera: self._open[camera] for camera in order}, captures_ns, now_ns)
        for camera in self.due():
            self._missed[camera] = self._missed.get(camera, 0) + 1
        self._closed_captures, self._open, self._open_captures = captures_ns, {}, {}
        return group

    def _stamp_problem(self, camera: str, capture_ns: int) -> tuple[str, str] | None:
        """Why a stamp cannot be true; one that can is remembered."""
        if not 0 <= capture_ns <= _MAX_STAMP:
            return "range", "not a time stamp in int64 nanoseconds"
        last_ns = self._last_ns.get(camera)
        if last_ns is not None and capture_ns <= last_ns:
            if capture_ns == last_ns:
                return "repeated", "the frame before had the same stamp"
            return "backwards", f"the frame before was captured at {last_ns} ns"
        if self._newest_ns is not None and capture_ns - self._newest_ns > self._max_gap_ns:
            jumped_to_ns, self._jumped_to_ns = self._jumped_to_ns, capture_ns
            if jumped_to_ns is None or abs(capture_ns - jumped_to_ns) > self._max_gap_ns:
                gap_s = (capture_ns - self._newest_ns) * 1e-9
                return "gap", f"{gap_s:.3f} s after all others, sync.max_gap_s is {self._config.max_gap_s:g}"
        self._jumped_to_ns = None
        self._newest_ns = max(capture_ns, self._newest_ns or 0)
        if last_ns is not None:
            period_ns = capture_ns - last_ns
            self._usual_period_ns[camera] = min(period_ns, self._period_ns.get(camera, period_ns))
            self._period_ns[camera] = period_ns
        self._last_ns[camera] = capture_ns
        self._missed[camera] = 0
        return None

    def _lateness(self, camera: str, capture_ns: int) -> tuple[str, str] | None:
        """Why there is no place for a frame in its tick: groups' stamps would not rise with it."""
        behind = bool(self._open) and capture_ns <= max(self._open_captures.values())
        if behind and camera in self._open:
            return "surplus", "its tick has a frame of this camera already"
        closed = self._closed_captures
        missed = bool(closed) and camera not in closed and self._together(closed, capture_ns)
        over = bool(closed) and capture_ns <= max(closed.values())
        if missed or over or (behind and not self._together(self._open_captures, capture_ns)):
            return "late", f"it came after its tick had closed; ticks are open for {self._config.window_ms:g} ms"
        return None

    def _together(self, captures_ns: dict[str, int], capture_ns: int) -> bool:
        """Whether a capture is within the window of these."""
        period_ns = min(self._period_ns.values(), default=self._max_gap_ns)
        window_ns = min(self._window_ns, _PART_OF_PERIOD * period_ns)
        stamps = (capture_ns, *captures_ns.values())
        return max(stamps) - min(stamps) <= window_ns

    def _due(self, camera: str, stamp_ns: int) -> bool:
        """Whether a camera should capture within the window of a stamp."""
        period_ns = self._usual_period_ns.get(camera)
        early = period_ns is not None and stamp_ns - self._last_ns[camera] < period_ns - self._window_ns
        return not early and self._missed.get(camera, 0) < _MAX_MISSED
