"""What is done about the budget: the decisions of enforcement, as plain functions of what it is told.

Nothing in here looks at a clock or does I/O: the same calls give the same decisions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from perception.budget import Budget
from perception.messages import Decision, FrameSet, Rig, TickTimes

_REMEMBERED: Final = 100  # ticks whose costs are kept
_TOLERATED: Final = 1  # of them may cost more than the reserve: one hiccup is not the rule
_HEADROOM: Final = 1.25
"""Times what fusion and output took: a thread may have to wait for the interpreter as well.

On two cores that is late in 3 of 750 ticks. With 1.4 it was 1, by 0.01 ms, but so much less was looked at that MOTA
fell from 53 to 48 % (sample drive, five runs each in turn). Who wants that sets `enforcement.reserve_ms`.
"""
_BEFORE_KNOWN: Final = 1.5
"""Times the least reserve, until `_KNOWN` ticks have told what they take.

The first are on the top of the ladder, where most is cut off and fusion takes longest. Of sixteen runs of the sample
drive on two cores seven had a late tick among the first 40, most by fractions of a millisecond; of twenty with this,
none.
"""
_KNOWN: Final = 40
_LARGEST_RESERVE: Final = 0.5  # of the deadline: beyond that nothing would be seen any more
_STALLS: Final = 5  # of those remembered may cost more than that too: the machine stood still, and no reserve helps
_FORGET: Final = 0.9  # of the least cost, per dropped tick: what is never tried is never measured
_LONGEST_WAIT: Final = 16  # times `up_after_ns`, when steps up fail
_RELIEF: Final = 0.7  # of the time ticks took when a step up failed: now it may not
_SMOOTHING: Final = 0.1
_STEPS_KEPT: Final = 1000


class Rung(NamedTuple):
    """One rung of the ladder: who looks, and in every how many ticks."""

    name: str
    every: Mapping[str, int]
    alarm: bool = False


class Plan(NamedTuple):
    """What to do with a frame set.

    `level` is the rung of the ladder, `cameras` who may look, in the order in which they go first. Work that is not in
    by `until_ns` on the monotonic clock is cut off; None waits as long as it takes. `decision` is what is published
    with the tracks, where that is settled beforehand.
    """

    level: int
    dropped: bool
    cameras: tuple[str, ...]
    until_ns: int | None
    decision: Decision | None = None


class Step(NamedTuple):
    """A step on the ladder, taken after a tick: from a level to a level, and why."""

    tick: int
    before: int
    after: int
    reason: str
    alarm: bool = False


class Enforcement(Protocol):
    """Who decides about ticks: the `Governor`, nobody, or a recording of what was decided."""

    rungs: Sequence[Rung]
    """The ladder, from everything down."""

    steps: Collection[Step]
    """The last steps on it."""

    def wanted(self, tick: int) -> frozenset[str]:
        """The cameras that look in a tick: the images of others need not be decoded. Any thread may ask."""

    def early(self, tick: int) -> tuple[int, frozenset[str]]:
        """The level of a tick to come, and the cameras that may start on their frames before the whole set is there."""

    def ingest_until_ns(self, arrival_ns: int) -> int | None:
        """When a source hands over a frame set that arrived then, decoded or not; None waits as long as it takes."""

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:
        """What to do with a frame set that is at hand now."""

    def learn(self, tick: int, plan: Plan, decision: Decision, times: TickTimes) -> Step | None:
        """Take in what became of a tick; the step on the ladder that follows from it, if any."""


class Undisturbed:
    """Every camera looks in every tick, however long it takes: stepped replay, or enforcement switched off."""

    def __init__(self, rig: Rig) -> None:
        self.rungs: Sequence[Rung] = (everything(rig),)
        self.steps: Collection[Step] = ()
        self._cameras = tuple(rig)
        self._wanted = frozenset(rig)

    def wanted(self, tick: int) -> frozenset[str]:  # noqa: ARG002 (the same for all)
        """All."""
        return self._wanted

    def early(self, tick: int) -> tuple[int, frozenset[str]]:  # noqa: ARG002
        """All."""
        return 0, self._wanted

    def ingest_until_ns(self, arrival_ns: int) -> int | None:  # noqa: ARG002
        """As long as it takes."""
        return None

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:  # noqa: ARG002
        """All of it."""
        return Plan(0, dropped=False, cameras=self._cameras, until_ns=None)

    def learn(self, tick: int, plan: Plan, decision: Decision, times: TickTimes) -> Step | None:
        """Nothing."""


class Recorded:
    """What was decided about a run, decided again: `decisions` by tick, on the ladder that the run had."""

    def __init__(self, rungs: Sequence[Rung], rig: Rig, decisions: Mapping[int, Decision]) -> None:
        self.rungs: Sequence[Rung] = rungs
        self._steps: deque[Step] = deque(maxlen=_STEPS_KEPT)
        self.steps: Collection[Step] = self._steps
        self._rig = rig
        self._decisions = decisions
        self._level = 0

    def wanted(self, tick: int) -> frozenset[str]:
        """Those whose detections were in."""
        decision = self._decisions[tick]
        return frozenset() if decision.dropped else frozenset(self._rig).difference(decision.skipped, decision.late)

    def early(self, tick: int) -> tuple[int, frozenset[str]]:
        """Those whose detections were in."""
        return self._decisions[tick].level, self.wanted(tick)

    def ingest_until_ns(self, arrival_ns: int) -> int | None:  # noqa: ARG002 (what is wanted was there)
        """As long as it takes."""
        return None

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:  # noqa: ARG002 (time makes no difference)
        """What was done then."""
        decision = self._decisions[frames.tick]
        wanted = self.wanted(frames.tick)
        cameras = tuple(camera for camera in self._rig if camera in wanted)
        return Plan(decision.level, decision.dropped, cameras, None, decision)

    def learn(self, tick: int, plan: Plan, decision: Decision, times: TickTimes) -> Step | None:  # noqa: ARG002
        """The step that the tick was the first to feel."""
        before, self._level = self._level, plan.level
        if before == plan.level:
            return None
        step = Step(tick, before, plan.level, "as recorded", alarm=self.rungs[plan.level].alarm)
        self._steps.append(step)
        return step


def everything(cameras: Iterable[str]) -> Rung:
    """The top of every ladder."""
    return Rung("everything", dict.fromkeys(cameras, 1))


@dataclass(frozen=True, slots=True)
class Settings:
    """When the governor does what; `reserve_ns` None is measured, and never less than the budgets ask for."""

    reserve_ns: int | None
    window: int
    down_after: int
    up_after_ns: int


class Governor:
    """Keeps ticks within their deadline by leaving out work, and steps down its ladder where that happens often.

    *Admission.* A frame set is dropped when not even the quickest channel of late could finish before only the reserve
    for fusion and output is left. *Cut-off.* So much is kept: their budgets, or what they took lately, whichever is
    more, and a quarter on top; half as much again until enough ticks have told. *Degradation.* An overrun is a tick
    that was dropped, published late, or had cameras cut off for lack of time as a whole: a camera that was cut off
    while one that went after it was in time has been slow by itself, which is no reason to look at less of the others.
    The camera cut off last goes first in the next ticks, and nobody starts before it until it has been in time again,
    so that nobody starves and who is at fault shows. `down_after` overruns within `window` ticks are a step down,
    `up_after_ns` without any a step up; where that soon leads to a step down again, the next try waits twice as long,
    unless ticks have become much cheaper since.
    """

    def __init__(self, rungs: Sequence[Rung], budget: Budget, settings: Settings) -> None:
        self.rungs: Sequence[Rung] = rungs
        self._steps: deque[Step] = deque(maxlen=_STEPS_KEPT)
        self.steps: Collection[Step] = self._steps
        self._settings = settings
        self._end_to_end_ns = budget.end_to_end_ns
        self._channel_ns = sum(budget.stage_ns[stage] for stage in ("preprocess", "detect", "nms"))
        self._ingest_ns = budget.stage_ns["ingest"]
        self._least_reserve_ns = round(_HEADROOM * (budget.stage_ns["fusion"] + budget.stage_ns["output"]))
        self._largest_reserve_ns = max(round(_LARGEST_RESERVE * self._end_to_end_ns), self._least_reserve_ns)
        self._turns = [_turns(rung.every) for rung in rungs]
        self._settled: dict[int, tuple[int, frozenset[str]]] = {}

        self._finishes_ns: deque[int] = deque(maxlen=_REMEMBERED)
        self._channels_ns: deque[int] = deque(maxlen=_REMEMBERED)
        self._first_reserve_ns = min(round(_BEFORE_KNOWN * self._least_reserve_ns), self._largest_reserve_ns)
        self._reserve_ns = settings.reserve_ns or self._first_reserve_ns
        self._finish_ns = round((settings.reserve_ns or self._least_reserve_ns) / _HEADROOM)
        self._quickest_ns = 0.0
        self._usual_ns = self._channel_ns
        self._suspects: dict[str, int] = {}  # who was cut off of late, and in which tick
        self._accused: frozenset[str] = frozenset()  # of them, who has not been in time since

        self._level = 0
        self._overruns: deque[bool] = deque(maxlen=settings.window)
        self._quiet_since_ns: int | None = None
        self._used = 0.0  # of the deadline, by the ticks since the last step
        self._try: _Try | None = None
        self._failed: dict[int, _Failed] = {}

    def wanted(self, tick: int) -> frozenset[str]:
        """The cameras whose turn it is on the present rung; settled for a tick when first asked."""
        return self._look(tick)[1]

    def early(self, tick: int) -> tuple[int, frozenset[str]]:
        """All that are wanted; but nobody goes before one that was cut off when it last looked."""
        level, wanted = self._look(tick)
        return level, wanted & self._accused or wanted

    def ingest_until_ns(self, arrival_ns: int) -> int:
        """Until a channel, as most went lately, could not finish before only the reserve is left: others have begun.

        Not less than the budget of ingest, nor than the other budgets leave; the headroom of the reserve is for the
        channels to give, which are what is cut off for it.
        """
        by_budget_ns = self._end_to_end_ns - self._finish_ns - self._channel_ns
        by_custom_ns = self._end_to_end_ns - self._reserve_ns - self._usual_ns
        return arrival_ns + max(by_custom_ns, by_budget_ns, self._ingest_ns)

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:
        """What to do with a frame set that is at hand now."""
        level, wanted = self._look(frames.tick)
        for tick in [tick for tick in list(self._settled) if tick <= frames.tick]:
            self._settled.pop(tick, None)
        until_ns = frames.arrival_ns + self._end_to_end_ns - self._reserve_ns
        dropped = now_ns + self._quickest_ns > until_ns
        cameras = [camera for camera in self.rungs[level].every if camera in wanted]
        if self._suspects:
            cameras.sort(key=lambda camera: self._suspects.get(camera, -1), reverse=True)
        return Plan(level, dropped, tuple(cameras), until_ns)

    def learn(self, tick: int, plan: Plan, decision: Decision, times: TickTimes) -> Step | None:
        """Take in what became of a tick; the step on the ladder that follows from it, if any."""
        decoded = {span.camera for span in times.spans if span.stage == "ingest"}
        self._measure(plan, decision, times)
        cut_off = [camera for camera in decision.late if camera in decoded]
        self._suspect(tick, cut_off, in_time=decoded.difference(decision.late, decision.skipped))
        overrun = (
            decision.dropped
            or times.late
            or len(cut_off) < len(decision.late)
            or _last_was_cut_off(plan.cameras, decoded, decision)
        )
        return self._step(tick, times, overrun=overrun)

    def _look(self, tick: int) -> tuple[int, frozenset[str]]:
        """Level and cameras of a tick, which stay what they were when first asked for."""
        settled = self._settled.get(tick)
        if settled is None:
            level = self._level
            wanted = frozenset(camera for camera, every, offset in self._turns[level] if (tick + offset) % every == 0)
            settled = self._settled.setdefault(tick, (level, wanted))
        return settled

    def _suspect(self, tick: int, cut_off: Sequence[str], in_time: Collection[str]) -> None:
        if self._suspects:
            oldest = tick - self._settings.window
            self._suspects = {camera: at for camera, at in self._suspects.items() if at > oldest}
        self._suspects.update(dict.fromkeys(cut_off, tick))
        self._accused = self._accused.union(cut_off).intersection(self._suspects).difference(in_time)

    def _measure(self, plan: Plan, decision: Decision, times: TickTimes) -> None:
        """Bring the reserve and the quickest channel up to date."""
        if decision.dropped:
            self._quickest_ns *= _FORGET
            return
        begins: dict[str, int] = {}
        for stage, camera, start_ns, end_ns in times.spans:
            if stage == "preprocess":
                begins[camera] = start_ns
            elif stage == "nms" and camera in begins:
                self._channels_ns.append(end_ns - begins[camera])
            elif stage == "fusion":
                due_ns = start_ns if plan.until_ns is None else min(start_ns, plan.until_ns)
                self._finishes_ns.append(times.published_ns - due_ns)
        if self._channels_ns:
            in_order = sorted(self._channels_ns)
            self._quickest_ns, self._usual_ns = in_order[0], in_order[len(in_order) // 2]
        if self._settings.reserve_ns is None and self._finishes_ns:
            in_order = sorted(self._finishes_ns)
            stalls = min(len(in_order) - bisect_right(in_order, self._largest_reserve_ns), _STALLS)
            costly = round(_HEADROOM * in_order[-1 - _TOLERATED - stalls :][0])
            reserve_ns = min(max(costly, self._least_reserve_ns), self._largest_reserve_ns)
            self._finish_ns = round(reserve_ns / _HEADROOM)
            known = len(self._finishes_ns) >= _KNOWN
            self._reserve_ns = reserve_ns if known else max(reserve_ns, self._first_reserve_ns)

    def _step(self, tick: int, times: TickTimes, *, overrun: bool) -> Step | None:
        now_ns, used = times.published_ns, times.end_to_end_ns / self._end_to_end_ns
        self._used = self._used + _SMOOTHING * (used - self._used) if self._used else used
        self._overruns.append(overrun)
        if overrun or self._quiet_since_ns is None:
            self._quiet_since_ns = now_ns
        count = sum(self._overruns)
        if count >= self._settings.down_after and self._level + 1 < len(self.rungs):
            reason = f"{count} of the last {len(self._overruns)} ticks overran"
            self._account_for_try(tick, now_ns)
            return self._to(self._level + 1, tick, now_ns, reason)
        quiet_ns = now_ns - self._quiet_since_ns
        if self._level and quiet_ns >= self._wait_ns():
            self._try = _Try(self._level, tick, now_ns, self._used)
            return self._to(self._level - 1, tick, now_ns, f"no overrun for {quiet_ns * 1e-9:.1f} s")
        return None

    def _to(self, level: int, tick: int, now_ns: int, reason: str) -> Step:
        before, self._level = self._level, level
        self._overruns.clear()
        self._quiet_since_ns = now_ns
        self._used = 0.0
        step = Step(tick, before, level, reason, alarm=self.rungs[level].alarm)
        self._steps.append(step)
        return step

    def _account_for_try(self, tick: int, now_ns: int) -> None:
        """On the way down: note whether this undoes a step up that came shortly before."""
        level, tried = self._level + 1, self._try
        self._try = None
        failed = self._failed.pop(level, _Failed(0, 0.0))
        if tried is None or tried.level != level:
            return
        gathering = tick - tried.tick < 2 * self._settings.window  # so long it may take until overruns tell
        if gathering or now_ns - tried.at_ns < self._doubled(failed.times):
            self._failed[level] = _Failed(failed.times + 1, tried.used)

    def _wait_ns(self) -> int:
        """How long it has to be quiet on this level before a step up is tried."""
        failed = self._failed.get(self._level)
        if failed is not None and self._used <= _RELIEF * failed.used:
            del self._failed[self._level]
            failed = None
        return self._doubled(0 if failed is None else failed.times)

    def _doubled(self, times: int) -> int:
        return self._settings.up_after_ns * min(1 << times, _LONGEST_WAIT)


class _Try(NamedTuple):
    """A step up: from where, when, and how much of the deadline ticks used there."""

    level: int
    tick: int
    at_ns: int
    used: float


class _Failed(NamedTuple):
    """How many tries in a row have failed from a level, and how much of the deadline ticks used there."""

    times: int
    used: float


def _turns(every: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(camera, n, offset): cameras that look in every n-th tick take turns, as far as they can."""
    met: dict[int, int] = {}
    turns = []
    for camera, n in every.items():
        offset = met.get(n, 0)
        met[n] = offset + 1
        turns.append((camera, n, offset))
    return turns


def _last_was_cut_off(order: Sequence[str], decoded: set[str], decision: Decision) -> bool:
    """Whether time ran out, rather than for one camera alone: then who went last was not in either."""
    looked = [camera for camera in order if camera in decoded and camera not in decision.skipped]
    return bool(looked) and looked[-1] in decision.late
