"""How the process is, in the few numbers that it is judged by."""

from __future__ import annotations

import json
import time
from typing import Final, Literal

from perception.messages import Tick

State = Literal["starting", "running", "reloading", "stopping"]
QUIET_S: Final = 1.0
"""Without frames for so long, none come: shorter gaps there are between ticks too."""


class Health:
    """Takes in every tick, and says whether tracks come on time.

    Written by the thread that ticks, read by all others, without a lock: every value stands for itself.
    """

    def __init__(self, stale_s: float) -> None:
        self.state: State = "starting"
        self.ticks = 0
        self.late = 0
        self.level = 0
        self.missing: tuple[str, ...] = ()
        self.on_time_ns: int | None = None
        self.quiet_ns: int | None = None
        self._stale_s = stale_s

    def begin(self, state: State) -> None:
        """Go over to another state, in which no tick has been on time yet."""
        self.on_time_ns = self.quiet_ns = None
        self.state = state

    def record(self, tick: Tick) -> None:
        """Take in one tick."""
        decision = tick.tracks.decision
        self.ticks += 1
        self.late += not decision.deadline_met
        self.level = decision.level
        self.missing = tick.frames.missing
        if decision.deadline_met:
            self.on_time_ns = tick.times.published_ns

    def quiet(self, seconds: float) -> None:
        """No frame set has come for so long; short gaps do not count, as what is always late has them too."""
        if seconds >= QUIET_S:
            self.quiet_ns = time.monotonic_ns()

    def close(self) -> None:
        """Nothing to be closed."""

    @property
    def ready(self) -> bool:
        """Whether the tracks can be relied on now: the last that came on time are not stale."""
        return self.state == "running" and self.on_time_ns is not None and self._since_on_time_s() < self._stale_s

    @property
    def healthy(self) -> bool:
        """Whether all goes as it should, be that starting up: what ran before has not got stuck."""
        return self.state != "running" or self.on_time_ns is None or self._since_on_time_s() < self._stale_s

    def status(self) -> str:
        """One line for a person."""
        ticks = f"{self.ticks} ticks, {self.late} late, ladder level {self.level}"
        missing = f", missing: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.state}: {ticks}{missing}"

    def report(self) -> bytes:
        """One JSON object for a machine."""
        since_s = None if self.on_time_ns is None else round(self._since_on_time_s(), 3)
        record = {
            "state": self.state,
            "ready": self.ready,
            "healthy": self.healthy,
            "ticks": self.ticks,
            "late": self.late,
            "ladder_level": self.level,
            "cameras_missing": self.missing,
            "since_on_time_s": since_s,
        }
        return json.dumps(record).encode() + b"\n"

    def _since_on_time_s(self) -> float:
        return (time.monotonic_ns() - (self.on_time_ns or 0)) * 1e-9
