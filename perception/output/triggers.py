"""What happened that is worth keeping: the flight recorder's reasons."""

from __future__ import annotations

from collections import deque

from perception.config import FlightConfig
from perception.messages import Tick


class Triggers:
    """Looks at every tick and says what an event should be kept for; the ticks are all it knows.

    - A burst of overruns: `overruns` ticks within `overruns_within_s` that were late, dropped, or had a camera cut off.
      It counts once, and again only after `overruns_within_s` without any.
    - A step of the degradation ladder, either way.
    - A camera that has been missing for `camera_lost_s`: once, until it is back.
    """

    def __init__(self, config: FlightConfig) -> None:
        self._config = config
        self._overruns_ns: deque[int] = deque(maxlen=config.overruns)
        self._bursting = False
        self._level: int | None = None
        self._missing_since_ns: dict[str, int] = {}
        self._told_missing: set[str] = set()

    def look(self, tick: Tick) -> list[str]:
        """The reasons that this tick brought, a few words each."""
        return [*self._burst(tick), *self._step(tick), *self._losses(tick)]

    def _burst(self, tick: Tick) -> list[str]:
        now_ns, recent, within_s = tick.frames.stamp_ns, self._overruns_ns, self._config.overruns_within_s
        while recent and abs(now_ns - recent[0]) > within_s * 1e9:
            recent.popleft()
        self._bursting &= bool(recent)
        if _overran(tick):
            recent.append(now_ns)
        if self._bursting or len(recent) < self._config.overruns:
            return []
        self._bursting = True
        return [f"{len(recent)} overruns in {within_s:g} s"]

    def _step(self, tick: Tick) -> list[str]:
        before, self._level = self._level, tick.tracks.decision.level
        return [] if before in (None, self._level) else [f"ladder {before} to {self._level}"]

    def _losses(self, tick: Tick) -> list[str]:
        now_ns, missing = tick.frames.stamp_ns, tick.frames.missing
        self._missing_since_ns = {camera: self._missing_since_ns.get(camera, now_ns) for camera in missing}
        lost_s = self._config.camera_lost_s
        lost = [camera for camera in missing if now_ns - self._missing_since_ns[camera] >= lost_s * 1e9]
        news = [f"{camera} missing for {lost_s:g} s" for camera in lost if camera not in self._told_missing]
        self._told_missing = set(lost)
        return news


def _overran(tick: Tick) -> bool:
    decision = tick.tracks.decision
    return tick.times.late or decision.dropped or bool(decision.late) or not decision.deadline_met
