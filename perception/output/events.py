"""What of the ticks is worth a line in a log that is kept for months."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from perception.messages import Tick
from perception.output.health import QUIET_S
from perception.systemd import Tell

_QUIET_NS: Final = 10_000_000_000
_BACK_NS: Final = 1_000_000_000
_AGAIN_NS: Final = 60_000_000_000
_MOST_FAULTS: Final = 100


class Events:
    """Tells when a camera is lost or found, and a fault is new; of late ticks every ten seconds at most.

    While no frames come at all, `quiet` is to be called. A camera is back when it was in all ticks for a second: one
    that comes and goes does not fill the log. `faults` gives all that was wrong so far, as a source does; the first
    hundred kinds are told, and again with their number every minute at most, when there were more of them.
    """

    def __init__(self, tell: Tell, faults: Callable[[], Sequence[str]]) -> None:
        self._tell = tell
        self._faults = faults
        self._told_faults: dict[str, tuple[str, int]] = {}
        self._missing_ns: dict[str, int] = {}
        self._quiet = False
        self._late = self._worst_ns = 0
        self._summed_up_ns: int | None = None

    def record(self, tick: Tick) -> None:
        """Take in one tick."""
        if self._quiet:
            self._quiet = False
            self._tell("info", "frames come again")
        self._cameras(tick.frames.missing, tick.times.published_ns)
        self._lateness(tick)
        self._new_faults()

    def quiet(self, seconds: float) -> None:
        """No frame set has come for so long."""
        self._new_faults()
        if not self._quiet and seconds >= QUIET_S:
            self._quiet = True
            self._tell("warning", f"no frames from any camera for {seconds:.0f} s")

    def close(self) -> None:
        """Tell what has not been told yet."""
        self._sum_up()

    def _cameras(self, missing: tuple[str, ...], now_ns: int) -> None:
        for camera in missing:
            if camera not in self._missing_ns:
                self._tell("warning", f"{camera} is missing")
            self._missing_ns[camera] = now_ns
        for camera in [camera for camera, at_ns in self._missing_ns.items() if now_ns - at_ns > _BACK_NS]:
            self._tell("info", f"{camera} is back")
            del self._missing_ns[camera]

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
        now_ns = time.monotonic_ns()
        for fault in self._faults():
            first = fault.partition(" (and ")[0]  # what comes behind counts those like it
            line, told_ns = self._told_faults.get(first, ("", -_AGAIN_NS))
            if line != fault and now_ns - told_ns >= _AGAIN_NS and (line or len(self._told_faults) < _MOST_FAULTS):
                self._told_faults[first] = (fault, now_ns)
                self._tell("warning", fault)
