from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.budget import WAITING, Budget, Histogram, Ledger, charge
from perception.messages import STAGES, StageSpan, TickTimes

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


def test_an_unbudgeted_stage_is_refused() -> None:
    with pytest.raises(KeyError):
        Ledger(Budget(20 * MS, {"detect": 1}), ["A"])
