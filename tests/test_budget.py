from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.budget import WAITING, Budget, Histogram, Ledger, breaches, charge
from perception.messages import STAGES, UNDISTURBED, Decision, StageSpan, TickTimes

MS = 1_000_000
BUDGET = Budget(20 * MS, dict.fromkeys(STAGES, 3 * MS))


def times(*spans: StageSpan, arrival: int = 0, published: int = 10 * MS) -> TickTimes:
    return TickTimes(arrival, published, arrival + 20 * MS, spans)


def test_parallel_work_is_shared_and_idle_time_is_waiting() -> None:
    charges = charge(
        times(
            StageSpan("preprocess", "A", 1 * MS, 3 * MS),
            StageSpan("detect", "B", 2 * MS, 4 * MS),
            StageSpan("output", "", 9 * MS, 10 * MS),
        )
    )
    assert charges["preprocess"] == pytest.approx(1.5 * MS)
    assert charges["detect"] == pytest.approx(1.5 * MS)
    assert charges["output"] == pytest.approx(1 * MS)
    assert charges[WAITING] == pytest.approx(6 * MS)


def test_two_cameras_in_one_stage_count_once_in_wall_time() -> None:
    charges = charge(times(StageSpan("detect", "A", 0, 10 * MS), StageSpan("detect", "B", 0, 10 * MS)))
    assert charges["detect"] == pytest.approx(10 * MS)


def test_work_before_the_arrival_is_not_charged() -> None:
    charges = charge(times(StageSpan("ingest", "A", -50 * MS, -40 * MS), StageSpan("detect", "A", -1 * MS, 2 * MS)))
    assert charges["ingest"] == 0
    assert charges["detect"] == pytest.approx(2 * MS)


spans = st.builds(
    lambda stage, start, length: StageSpan(stage, "A", start, start + length),
    st.sampled_from(STAGES),
    st.integers(-5 * MS, 15 * MS),
    st.integers(0, 10 * MS),
)


@given(st.lists(spans, max_size=30))
def test_charges_add_up_to_the_end_to_end_time(work: list[StageSpan]) -> None:
    assert sum(charge(times(*work)).values()) == pytest.approx(10 * MS)


@given(st.lists(st.integers(2_000, 10**10), min_size=1, max_size=300))
def test_percentiles_are_within_half_a_percent_of_nearest_rank(durations: list[int]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    measured = histogram.percentiles()
    ranked = np.sort(durations)
    for quantile, value in ((0.5, measured.p50), (0.99, measured.p99), (0.999, measured.p999)):
        expected = ranked[math.ceil(quantile * len(ranked)) - 1] / MS
        assert value == pytest.approx(expected, rel=0.0051)
    assert measured.max == ranked[-1] / MS
    assert measured.count == len(durations)


def test_an_empty_histogram_measures_nothing() -> None:
    assert math.isnan(Histogram().percentiles().p50)


def test_ledger_counts_late_ticks_overruns_and_missing_cameras() -> None:
    ledger = Ledger(BUDGET, ["A", "B"])
    ledger.enter(0, times(StageSpan("detect", "A", 0, 2 * MS)), 0, ())
    ledger.enter(1, times(StageSpan("detect", "A", 0, 4 * MS)), 0, ("B",))
    ledger.enter(2, times(published=21 * MS), 0, ())
    assert (ledger.ticks, ledger.late, ledger.with_missing_camera) == (3, 1, 1)
    rows = {row.name: row for row in ledger.stages()}
    assert rows["detect"].overruns == 1
    assert rows["detect"].budget_ms == 3
    assert ledger.end_to_end().overruns == 1
    assert ledger.cameras()["A"]["detect"].max == 4
    assert ledger.cameras()["B"]["detect"].count == 0


def test_ledger_keeps_the_worst_ticks_whole() -> None:
    ledger = Ledger(BUDGET, ["A"], keep_worst=2)
    for tick, published in enumerate((5, 9, 7, 3)):
        ledger.enter(tick, times(published=published * MS), 0, ())
    assert [tick for tick, _ in ledger.worst()] == [1, 2]


WORK = tuple(StageSpan(stage, "", i * MS, (i + 1) * MS) for i, stage in enumerate(STAGES))


def held(*spans: StageSpan, budget: Budget = BUDGET, ticks: int = 100, decision: Decision = UNDISTURBED) -> list[str]:
    """What `breaches` says of an account of ticks that all have these spans."""
    ledger = Ledger(budget, ["A"])
    for tick in range(ticks):
        ledger.enter(tick, times(*spans), 0, (), decision)
    return breaches(ledger)


def test_a_budget_that_holds_has_no_breaches() -> None:
    assert held(*WORK) == []


def test_a_p99_over_its_budget_is_a_breach_and_names_the_stage() -> None:
    tight = Budget(20 * MS, BUDGET.stage_ns | {"nms": 999_000})
    assert held(*WORK, budget=tight) == ["nms: p99 of 1.00 ms, over its budget of 0.999 ms"]


def test_late_ticks_are_a_breach() -> None:
    ledger = Ledger(BUDGET, ["A"])
    for tick in range(1000):
        ledger.enter(tick, times(*WORK, published=(21 if tick == 7 else 10) * MS), 0, ())
    assert breaches(ledger) == ["1 of 1000 ticks were late"]


def test_a_stage_without_a_budget_is_a_breach() -> None:
    assert held(*WORK, StageSpan("segment", "A", 6 * MS, 7 * MS)) == ["segment: no budget, and it was at work"]
    without = Budget(20 * MS, {stage: budget for stage, budget in BUDGET.stage_ns.items() if stage != "fusion"})
    assert held(*WORK, budget=without) == ["fusion: no budget, and it was at work"]


def test_a_budget_without_a_stage_is_a_breach() -> None:
    more = Budget(20 * MS, BUDGET.stage_ns | {"segment": MS})
    assert held(*WORK, budget=more) == ["segment: a budget of 1 ms, and it was never at work"]
    assert "fusion: a budget of 3 ms, and it was never at work" in held(*(s for s in WORK if s.stage != "fusion"))


@pytest.mark.parametrize(
    ("decision", "breach"),
    [
        (Decision(dropped=True), "100 of 100 ticks were dropped"),
        (Decision(level=2), "100 of 100 ticks were on a lower level of the ladder"),
        (Decision(late=("A",)), "100 of 100 ticks were without A, which was cut off"),
    ],
)
def test_being_on_time_by_leaving_work_out_is_a_breach(decision: Decision, breach: str) -> None:
    assert breach in held(*WORK, decision=decision)


def test_one_tick_in_a_hundred_may_be_degraded() -> None:
    ledger = Ledger(BUDGET, ["A"])
    for tick in range(200):
        ledger.enter(tick, times(*WORK), 0, (), Decision(late=("A",)) if tick < 2 else UNDISTURBED)
    assert breaches(ledger) == []
