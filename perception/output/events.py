"""What of the ticks is worth a line in a log that is kept for months."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from perception.messages import Tick
from perception.systemd import Tell

_QUIET_NS: Final = 10_000_000_000
_QUIET_S: Final = 1.0
_MOST_FAULTS: Final = 100


class Events:
    """Tells when a camera is lost or found, the ladder steps, a fault is new; of late ticks every ten seconds at most.

    While no frames come at all, `quiet` is to be called.

    `faults` gives all that was wrong so far, as a source does; the first hundred are told.
    """

    def __init__(self, tell: Tell, faults: Callable[[], Sequence[str]]) -> None:
        self._tell = tell
        self._faults = faults
        self._told_faults: set[str] = set()
        self._missing: tuple[str, ...] = ()
        self._level = 0
        self._quiet = False
        self._late = self._worst_ns = 0
        self._summed_up_ns: int | None = None

    def record(self, tick: Tick) -> None:
        """Take in one tick."""
        if self._quiet:
            self._quiet = False
            self._tell("info", "frames come again")
        self._cameras(tick.frames.missing)
        self._ladder(tick.tracks.decision.level)
        self._lateness(tick)
        self._new_faults()

    def quiet(self, seconds: float) -> None:
        """No frame set has come for so long."""
        self._new_faults()
        if not self._quiet and seconds >= _QUIET_S:
            self._quiet = True
            self._tell("warning", f"no frames from any camera for {seconds:.0f} s")

    def close(self) -> None:
        """Tell what has not been told yet."""
        self._sum_up()

    def _cameras(self, missing: tuple[str, ...]) -> None:
        if missing == self._missing:
            return
        for camera in missing:
            if camera not in self._missing:
                self._tell("warning", f"{camera} is missing")
        for camera in self._missing:
            if camera not in missing:
                self._tell("info", f"{camera} is back")
        self._missing = missing

    def _ladder(self, level: int) -> None:
        if level != self._level:
            self._tell("warning" if level > self._level else "info", f"ladder level {level}, from {self._level}")
            self._level = level

    def _lateness(self, tick: Tick) -> None:
        times = tick.times
        if times.deadline_ns is not None and not tick.tracks.decision.deadline_met:
            self._late += 1
            self._worst_ns = max(self._worst_ns, times.published_ns - times.deadline_ns)
        if self._late and (self._summed_up_ns is None or times.published_ns - self._summed_up_ns > _QUIET_NS):
            self._summed_up_ns = times.published_ns
            self._sum_up()

    def _sum_up(self) -> None:
        if self._late:
            ticks = "tick" if self._late == 1 else "ticks"
            self._tell("warning", f"{self._late} {ticks} late, by up to {self._worst_ns * 1e-6:.2f} ms")
            self._late = self._worst_ns = 0

    def _new_faults(self) -> None:
        for fault in self._faults():
            first = fault.partition(" (and ")[0]  # what comes behind counts those like it
            if first not in self._told_faults and len(self._told_faults) < _MOST_FAULTS:
                self._told_faults.add(first)
                self._tell("warning", first)
