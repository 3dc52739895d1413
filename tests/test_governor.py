from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.budget import Budget
from perception.governor import Governor, Plan, Rung, Settings, Step, Undisturbed, everything
from perception.messages import Decision, Frame, FrameSet, Span, StageSpan, TickTimes
from tests.output.samples import make_rig

MS = 1_000_000
SECOND = 1_000 * MS
PERIOD_NS = 100 * MS
BUDGET = Budget(
    20 * MS, {"ingest": 5 * MS, "preprocess": 2 * MS, "detect": 8 * MS, "nms": MS, "fusion": 2 * MS, "output": MS}
)
CAMERAS = ("F", "L", "R", "B")
RUNGS = (
    everything(CAMERAS),
    Rung("B in turn", {"F": 1, "L": 1, "R": 1, "B": 2}),
    Rung("L, R, B in turn", {"F": 1, "L": 3, "R": 3, "B": 3}),
    Rung("F only", {"F": 1}, alarm=True),
)
LEFT_NS = 16_250_000  # of the deadline, by the budgets of fusion and output and a quarter more
LEFT_AT_FIRST_NS = 14_375_000  # half as much again is kept until enough ticks have told what they take
KNOWN = 40
SETTINGS = Settings(reserve_ns=None, window=20, down_after=3, up_after_ns=SECOND)
IMAGE = np.zeros((1, 1, 3), np.uint8)

Cost = Callable[[int, str], int]
"""Nanoseconds of a camera's channel in a tick."""


def make_governor(rungs: Sequence[Rung] = RUNGS, wanted: Settings = SETTINGS) -> Governor:
    return Governor(rungs, BUDGET, wanted)


def frame_set(tick: int, arrival_ns: int, cameras: Sequence[str] = CAMERAS) -> FrameSet:
    frames = tuple(Frame(c, IMAGE, arrival_ns, arrival_ns, Span(arrival_ns, arrival_ns + MS)) for c in cameras)
    return FrameSet(tick, arrival_ns, 0, frames, ())


@dataclass
class Machine:
    """Ticks in virtual time: the channels of a tick run one after the other, in the order of the plan."""

    governor: Governor = field(default_factory=make_governor)
    tick: int = 0
    fusion_ns: int = 2 * MS
    level: int = 0
    steps: list[Step] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def run(self, ticks: int, cost: Cost, at_hand_ns: int = 3 * MS) -> list[Decision]:
        return [self.one(cost, at_hand_ns) for _ in range(ticks)]

    def one(self, cost: Cost, at_hand_ns: int) -> Decision:
        arrival = (self.tick + 1) * PERIOD_NS
        plan = self.governor.plan(frame_set(self.tick, arrival), arrival + at_hand_ns)
        assert plan.until_ns is not None
        spans = [StageSpan("ingest", camera, arrival, arrival + MS) for camera in CAMERAS]
        now, late = arrival + at_hand_ns, []
        for camera in () if plan.dropped else plan.cameras:
            begun, now = now, now + cost(self.tick, camera)
            if now > plan.until_ns:
                late.append(camera)
                # one that is slow by itself holds nobody up
                now = begun if cost(self.tick, camera) > 100 * MS else now
            else:
                spans += [StageSpan("preprocess", camera, begun, begun), StageSpan("nms", camera, now, now)]
        fusing = min(now, plan.until_ns) if not plan.dropped else now
        published = fusing + self.fusion_ns
        spans.append(StageSpan("fusion", "", fusing, published))
        times = TickTimes(arrival, published, arrival + BUDGET.end_to_end_ns, tuple(spans))
        skipped = () if plan.dropped else tuple(c for c in CAMERAS if c not in plan.cameras)
        decision = Decision(plan.level, plan.dropped, skipped, tuple(late), deadline_met=not times.late)
        step = self.governor.learn(self.tick, plan, decision, times)
        if step is not None:
            assert step.before == self.level
            self.level = step.after
            self.steps.append(step)
        self.plans.append(plan)
        self.decisions.append(decision)
        self.tick += 1
        return decision


def light(_: int, __: str) -> int:
    return 2 * MS


def heavy(_: int, __: str) -> int:
    return 9 * MS


def test_what_fits_is_left_alone() -> None:
    machine = Machine()
    assert set(machine.run(100, light)) == {Decision()}
    assert machine.steps == []


def test_the_cut_off_leaves_the_reserve_for_fusion_and_output() -> None:
    machine = Machine()
    machine.run(KNOWN, light)
    plan = machine.governor.plan(frame_set(KNOWN, SECOND), SECOND)
    assert plan == Plan(0, dropped=False, cameras=CAMERAS, until_ns=SECOND + LEFT_NS)


def test_more_is_left_until_it_is_known_what_they_take() -> None:
    machine = Machine()
    machine.run(KNOWN + 1, light)
    left_ns = [plan.until_ns - (tick + 1) * PERIOD_NS for tick, plan in enumerate(machine.plans) if plan.until_ns]
    assert left_ns == [LEFT_AT_FIRST_NS] * KNOWN + [LEFT_NS]


def test_decoding_is_waited_for_as_long_as_a_usual_channel_still_fits_in() -> None:
    machine = Machine()
    assert machine.governor.ingest_until_ns(SECOND) == SECOND + 6 * MS  # nothing is known but the budgets
    machine.run(KNOWN, lambda tick, _: (2 + tick % 2) * MS)  # 3 ms half of the time, and once 9
    machine.run(1, lambda _, camera: 9 * MS if camera == "F" else 2 * MS)
    assert machine.governor.ingest_until_ns(SECOND) == SECOND + LEFT_NS - 2 * MS
    machine.run(50, lambda _, __: 3 * MS)
    assert machine.governor.ingest_until_ns(SECOND) == SECOND + LEFT_NS - 3 * MS


def test_the_reserve_grows_with_what_fusion_and_output_take_and_never_below_their_budgets() -> None:
    machine = Machine(fusion_ns=5 * MS)
    machine.run(1, light)
    assert machine.one(light, 0) == Decision()
    assert machine.plans[-1].until_ns == 2 * PERIOD_NS + 13_750_000
    machine.fusion_ns = MS
    machine.run(101, light)
    assert machine.plans[-1].until_ns == machine.tick * PERIOD_NS + LEFT_NS


def test_one_hiccup_of_fusion_is_not_the_rule_and_no_reserve_takes_all() -> None:
    machine = Machine()
    machine.run(KNOWN, light)
    machine.fusion_ns = 16 * MS
    machine.run(1, light)
    machine.fusion_ns = 2 * MS
    machine.run(1, light)
    assert machine.plans[-1].until_ns == machine.tick * PERIOD_NS + LEFT_NS
    machine.fusion_ns = 9 * MS
    machine.run(3, light)
    assert machine.plans[-1].until_ns == machine.tick * PERIOD_NS + 10 * MS


def test_a_machine_that_stood_still_does_not_take_time_from_the_channels_unless_it_does_so_all_the_time() -> None:
    machine = Machine()
    machine.run(KNOWN, light)
    for stalls, left_ns in ((5, LEFT_NS), (3, 10 * MS)):
        machine.fusion_ns = 50 * MS
        machine.run(stalls, light)
        machine.fusion_ns = 2 * MS
        machine.run(1, light)
        assert machine.plans[-1].until_ns == machine.tick * PERIOD_NS + left_ns


def test_a_fixed_reserve_stays() -> None:
    governor = make_governor(wanted=Settings(6 * MS, window=20, down_after=3, up_after_ns=SECOND))
    machine = Machine(governor, fusion_ns=9 * MS)
    machine.run(5, light)
    assert machine.plans[-1].until_ns == machine.tick * PERIOD_NS + 14 * MS


def test_a_frame_set_that_cannot_finish_is_dropped_and_the_next_one_is_not() -> None:
    machine = Machine()
    machine.run(5, light)
    (old,) = machine.run(1, light, at_hand_ns=16 * MS)
    assert old.dropped
    (fresh,) = machine.run(1, light)
    assert fresh == Decision()


def test_a_machine_that_was_slow_is_tried_again_after_drops() -> None:
    machine = Machine(make_governor(RUNGS[:1]))
    machine.run(200, lambda _, __: 10 * MS)
    dropped = [decision.dropped for decision in machine.run(30, light, at_hand_ns=12 * MS)]
    assert dropped[0]
    assert not any(dropped[10:])


def test_repeated_overruns_step_down_and_a_quiet_time_steps_up_again() -> None:
    machine = Machine()
    machine.run(15, heavy)
    assert [step.after for step in machine.steps] == [1, 2, 3]
    assert [step.alarm for step in machine.steps] == [False, False, True]
    assert machine.steps[0].reason == "3 of the last 3 ticks overran"
    assert machine.decisions[-1] == Decision(3, skipped=("L", "R", "B"))
    stepped = machine.tick
    machine.run(40, light)
    assert [step.after for step in machine.steps[3:]] == [2, 1, 0]
    # each after a second without an overrun
    assert machine.steps[3].tick - stepped < 12
    assert all(b.tick - a.tick == 10 for a, b in itertools.pairwise(machine.steps[3:]))
    assert machine.decisions[-1] == Decision()


def test_overruns_that_are_far_apart_are_no_reason_to_step() -> None:
    machine = Machine()
    machine.run(300, lambda tick, _: heavy(0, "") if tick % 11 == 0 else light(0, ""))
    assert machine.steps == []


def test_cameras_take_turns() -> None:
    machine = Machine(make_governor(RUNGS[2:]))
    machine.run(6, light)
    looked = [set(plan.cameras) for plan in machine.plans]
    assert all("F" in cameras and len(cameras) == 2 for cameras in looked)
    assert looked[:3] == looked[3:]
    assert set().union(*looked[:3]) == set(CAMERAS)


def test_a_camera_that_is_slow_by_itself_is_no_reason_to_step() -> None:
    machine = Machine()
    machine.run(200, lambda _, camera: 200 * MS if camera == "L" else 2 * MS)
    assert machine.steps == []
    assert all(decision.late == ("L",) for decision in machine.decisions)


def test_the_last_one_of_all_is_slow_by_itself_too_and_goes_first_to_show_it() -> None:
    machine = Machine()
    machine.run(200, lambda _, camera: 200 * MS if camera == "B" else 2 * MS)
    assert machine.steps == []
    assert machine.plans[1].cameras == ("B", "F", "L", "R")


def test_who_was_cut_off_for_lack_of_time_goes_first_next_time() -> None:
    machine = Machine(make_governor(RUNGS[:1]))
    machine.run(KNOWN, light)
    machine.run(8, lambda _, __: 4 * MS)
    late = [decision.late for decision in machine.decisions[KNOWN:]]
    assert late[0] == ("B",)
    assert len(set(late)) > 2


def test_nobody_may_start_before_one_that_was_cut_off_when_it_last_looked() -> None:
    machine = Machine()
    assert machine.governor.early(0) == (0, frozenset(CAMERAS))
    machine.run(1, lambda _, camera: 200 * MS if camera == "L" else MS)
    assert machine.governor.early(1) == (0, frozenset({"L"}))
    machine.run(1, light)
    assert machine.governor.early(2) == (0, frozenset(CAMERAS))


def test_one_that_hangs_holds_nobody_back_for_ever() -> None:
    machine = Machine()
    machine.run(1, lambda _, camera: 200 * MS if camera == "L" else MS)
    governor, arrival = machine.governor, PERIOD_NS
    for tick in range(1, SETTINGS.window + 1):
        assert governor.early(tick) == (0, frozenset({"L"}))
        arrival += PERIOD_NS
        plan = governor.plan(frame_set(tick, arrival), arrival)
        spans = tuple(StageSpan("ingest", camera, arrival, arrival + MS) for camera in CAMERAS)
        times = TickTimes(arrival, arrival + 5 * MS, arrival + 20 * MS, spans)
        governor.learn(tick, plan, Decision(skipped=("L",)), times)
    assert governor.early(SETTINGS.window + 1) == (0, frozenset(CAMERAS))


def test_a_frame_that_was_not_decoded_in_time_is_an_overrun() -> None:
    governor = make_governor()
    steps = []
    for tick in range(3):
        arrival = (tick + 1) * PERIOD_NS
        plan = governor.plan(frame_set(tick, arrival), arrival)
        spans = tuple(StageSpan("ingest", camera, arrival, arrival + MS) for camera in CAMERAS if camera != "L")
        times = TickTimes(arrival, arrival + 5 * MS, arrival + 20 * MS, spans)
        steps.append(governor.learn(tick, plan, Decision(late=("L",)), times))
    assert [step is None for step in steps] == [True, True, False]


def test_the_level_of_a_tick_is_settled_when_it_is_first_asked_for() -> None:
    machine = Machine()
    machine.run(2, heavy)
    ahead = machine.tick + 1
    assert machine.governor.wanted(ahead) == set(CAMERAS)
    machine.run(1, heavy)
    assert machine.level == 1
    machine.run(1, heavy)
    assert machine.plans[-1].level == 0
    machine.run(1, heavy)
    assert machine.plans[-1].level == 1


def test_a_machine_between_two_rungs_does_not_flap() -> None:
    """On level 1 all is well, on level 0 it never is."""
    machine = Machine()
    machine.run(3000, lambda _, __: 4 * MS)
    ups = [step.tick for step in machine.steps if step.after < step.before]
    assert len(ups) < 25
    # the last tries come at the longest interval, 16 s
    assert all(b - a >= 160 for a, b in itertools.pairwise(ups[-5:]))


def test_overruns_that_gather_slowly_make_it_no_more_nervous() -> None:
    """On level 0 every eighth tick overruns, which takes longer to tell than the quiet time of a step up."""
    machine = Machine()
    machine.run(3000, lambda tick, _: (5 if tick % 8 == 0 and machine.level == 0 else 1) * MS)
    ups = [step.tick for step in machine.steps if step.after < step.before]
    assert len(ups) < 25
    assert all(b - a >= 160 for a, b in itertools.pairwise(ups[-5:]))


def test_tries_that_failed_are_forgiven_when_ticks_become_much_cheaper() -> None:
    machine = Machine()
    machine.run(3000, lambda _, __: 4 * MS)
    machine.run(50, lambda _, __: MS)
    assert machine.level == 0


def test_a_rig_with_nothing_to_leave_out_is_only_cut_off() -> None:
    machine = Machine(make_governor(RUNGS[:1]))
    machine.run(50, heavy)
    assert machine.steps == []
    assert all(decision.deadline_met for decision in machine.decisions)


def test_undisturbed_leaves_nothing_out() -> None:
    rig = make_rig("F", "L")
    undisturbed = Undisturbed(rig)
    assert undisturbed.plan(frame_set(0, 0, ("F", "L")), 10 * SECOND) == Plan(0, False, ("F", "L"), None)  # noqa: FBT003
    assert undisturbed.wanted(7) == {"F", "L"}
    assert undisturbed.early(7) == (0, frozenset({"F", "L"}))
    assert undisturbed.ingest_until_ns(0) is None


costs = st.lists(st.integers(MS // 10, 40 * MS), min_size=1, max_size=60)
at_hand = st.lists(st.integers(0, 25 * MS), min_size=1, max_size=60)


@given(costs, at_hand, st.integers(MS, 30 * MS), st.integers(1, len(RUNGS)))
@settings(deadline=None)
def test_whatever_happens(each: list[int], waits: list[int], fusion_ns: int, rungs: int) -> None:
    def played() -> Machine:
        machine = Machine(make_governor(RUNGS[:rungs]), fusion_ns=fusion_ns)
        for tick, wait in enumerate(waits * 3):
            machine.run(1, lambda t, camera: each[(t + CAMERAS.index(camera)) % len(each)], wait)
            plan, arrival = machine.plans[-1], (tick + 1) * PERIOD_NS
            assert plan.until_ns is not None
            # never admitted where nothing is left before the reserve, and the reserve is never less than the budgets
            assert plan.dropped or arrival + wait <= plan.until_ns
            assert arrival + 10 * MS <= plan.until_ns <= arrival + LEFT_NS
            assert 0 <= plan.level < rungs
            assert set(plan.cameras) <= set(RUNGS[plan.level].every)
        return machine

    machine = played()
    for step in machine.steps:
        assert abs(step.after - step.before) == 1
    levels = [plan.level for plan in machine.plans]
    assert all(abs(a - b) <= 1 for a, b in itertools.pairwise(levels))
    again = played()
    assert (again.plans, again.decisions, again.steps) == (machine.plans, machine.decisions, machine.steps)


@given(costs, at_hand)
@settings(deadline=None)
def test_steps_down_have_their_overruns_and_steps_up_their_quiet(each: list[int], waits: list[int]) -> None:
    machine = Machine()
    for wait in waits * 3:
        machine.run(1, lambda tick, _: each[tick % len(each)], wait)
    last = -1
    for step in machine.steps:
        since = machine.decisions[last + 1 : step.tick + 1]
        troubled = [d.dropped or bool(d.late) or not d.deadline_met for d in since]
        if step.after > step.before:
            assert sum(troubled[-SETTINGS.window :]) >= SETTINGS.down_after
        else:
            assert step.tick - last >= SETTINGS.up_after_ns // PERIOD_NS
            assert not any(troubled[-(SETTINGS.up_after_ns // PERIOD_NS) :])
        last = step.tick


@given(st.integers(0, 25 * MS), st.integers(MS // 10, 10 * MS))
def test_the_cut_off_never_lies_behind_the_hand_over(wait: int, cost: int) -> None:
    machine = Machine()
    machine.run(20, lambda _, __: cost, wait)
    arrival = 7 * SECOND
    assert BUDGET.stage_ns["ingest"] <= machine.governor.ingest_until_ns(arrival) - arrival < BUDGET.end_to_end_ns


@pytest.mark.parametrize("quiet_s", [0.5, 1.0, 3.0])
def test_the_quiet_time_is_the_config_s(quiet_s: float) -> None:
    governor = make_governor(wanted=Settings(None, window=20, down_after=3, up_after_ns=round(quiet_s * SECOND)))
    machine = Machine(governor)
    machine.run(3, heavy)
    machine.run(60, light)
    down, up = machine.steps[:2]
    assert (up.tick - down.tick) * PERIOD_NS == pytest.approx(quiet_s * SECOND, abs=2 * PERIOD_NS)
