"""The latency budget: what each stage may take, and what it took.

How a tick's time is shared out: every nanosecond between arrival and publication is charged to the stages of the work
in progress in it, each camera's in equal parts, and to `waiting` when there was none. So the charges of a tick add up
to its end-to-end latency exactly, on two cores as on six CUDA streams, and a stage's charge can be held against its
budget. Percentiles of charges do not add up to the percentile of the whole; both are measured.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from perception.messages import STAGES, UNDISTURBED, Decision, TickTimes

WAITING: Final = "waiting"
_TOLERATED: Final = 0.01  # of the ticks: what a p99 does not see either
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Nanoseconds a tick may take end to end, and each of its stages."""

    end_to_end_ns: int
    stage_ns: dict[str, int]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution of durations in milliseconds; NaN where nothing was measured."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


class Histogram:
    """Durations in logarithmic bins: constant memory over any number of ticks, percentiles within 0.5 %.

    The idea is HdrHistogram's (Tene): relative precision, fixed range; here 1 microsecond to 100 seconds.
    """

    _LOWEST_NS: Final = 1_000
    _GROWTH: Final = math.log1p(0.01)
    _BINS: Final = 1_854

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, np.int64)
        self._max_ns = 0

    def add(self, duration_ns: float) -> None:
        """Count one duration."""
        position = math.log(max(duration_ns, self._LOWEST_NS) / self._LOWEST_NS) / self._GROWTH
        self._counts[min(int(position), self._BINS - 1)] += 1
        self._max_ns = max(self._max_ns, int(duration_ns))

    @property
    def count(self) -> int:
        """How many durations were added."""
        return int(self._counts.sum())

    def percentiles(self) -> Percentiles:
        """The usual quantiles, and the maximum."""
        return Percentiles(self.count, *self.quantiles(0.5, 0.99, 0.999, 1.0))

    def quantiles(self, *probabilities: float) -> list[float]:
        """Milliseconds by nearest rank: each the middle of the bin that holds its rank, the maximum exact."""
        cumulative = np.cumsum(self._counts)
        count = int(cumulative[-1])

        def at(probability: float) -> float:
            rank = max(math.ceil(probability * count), 1)
            if rank == count:
                return self._max_ns / _NS_PER_MS
            middle = int(np.searchsorted(cumulative, rank)) + 0.5
            return min(self._LOWEST_NS * math.exp(middle * self._GROWTH), self._max_ns) / _NS_PER_MS

        return [at(probability) if count else math.nan for probability in probabilities]


def charge(times: TickTimes) -> dict[str, float]:
    """Share a tick's end-to-end time out among its stages and `waiting`, in nanoseconds.

    Work outside [arrival, publication], such as decoding ahead in stepped replay, is not charged.
    """
    first, last = times.arrival_ns, times.published_ns
    edges: list[tuple[int, int, str]] = []
    for stage, _, start_ns, end_ns in times.spans:
        start, end = max(start_ns, first), min(end_ns, last)
        if end > start:
            edges.append((start, 1, stage))
            edges.append((end, -1, stage))
    edges.sort()
    charges = dict.fromkeys((*STAGES, WAITING), 0.0)
    for _, _, stage in edges:
        charges.setdefault(stage, 0.0)
    active = dict.fromkeys(charges, 0)
    running, since = 0, first
    for at, step, stage in edges:
        _share(charges, active, running, at - since)
        active[stage] += step
        running += step
        since = at
    charges[WAITING] += last - since
    return charges


def _share(charges: dict[str, float], active: dict[str, int], running: int, duration_ns: int) -> None:
    if running == 0:
        charges[WAITING] += duration_ns
        return
    part = duration_ns / running
    for stage, count in active.items():
        if count:
            charges[stage] += count * part


@dataclass(slots=True)
class _Row:
    histogram: Histogram
    budget_ns: int | None
    overruns: int = 0

    def add(self, duration_ns: float) -> None:
        self.histogram.add(duration_ns)
        if self.budget_ns is not None and duration_ns > self.budget_ns:
            self.overruns += 1


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One line of the account: a stage's charge per tick, or a camera's own span in a stage."""

    name: str
    budget_ms: float | None
    overruns: int
    measured: Percentiles


@dataclass(slots=True)
class LevelUse:
    """What was spent on a level of the ladder: ticks, and nanoseconds from the tick before to the last of them."""

    ticks: int = 0
    duration_ns: int = 0


class Ledger:
    """What was spent: per stage, per camera and end to end, with the worst ticks kept whole.

    Flat in memory: histograms of fixed size, and a fixed number of worst ticks.
    """

    def __init__(self, budget: Budget, cameras: Collection[str], keep_worst: int = 5) -> None:
        self.budget = budget
        self.ticks = 0
        self.late = 0
        self.with_missing_camera = 0
        self.dropped = 0
        self.cut_off = dict.fromkeys(cameras, 0)
        self.skipped = dict.fromkeys(cameras, 0)
        self.levels: dict[int, LevelUse] = {}
        self._published_ns: int | None = None
        self._end_to_end = _Row(Histogram(), budget.end_to_end_ns)
        self._age = _Row(Histogram(), None)
        self._stages = {name: _Row(Histogram(), budget_ns) for name, budget_ns in budget.stage_ns.items()}
        self._stages[WAITING] = _Row(Histogram(), None)
        self._per_camera = {
            (camera, stage): Histogram() for camera in cameras for stage in ("ingest", "preprocess", "detect", "nms")
        }
        self._keep_worst = keep_worst
        self._worst: list[tuple[int, int, TickTimes]] = []

    def enter(
        self,
        tick: int,
        times: TickTimes,
        age_ns: int,
        missing: Sequence[str],
        decision: Decision = UNDISTURBED,
    ) -> None:
        """Book one tick; `age_ns` is publication minus capture on the time line of the data."""
        self.ticks += 1
        self.late += times.late
        self.with_missing_camera += bool(missing)
        self._enter_decision(decision, times.published_ns)
        self._end_to_end.add(times.end_to_end_ns)
        self._age.add(age_ns)
        for stage, duration_ns in charge(times).items():
            if stage not in self._stages:
                self._stages[stage] = _Row(Histogram(), None)
            self._stages[stage].add(duration_ns)
        for stage, camera, start_ns, end_ns in times.spans:
            if camera:
                self._of_camera(camera, stage).add(end_ns - start_ns)
        heapq.heappush(self._worst, (times.end_to_end_ns, tick, times))
        if len(self._worst) > self._keep_worst:
            heapq.heappop(self._worst)

    def _enter_decision(self, decision: Decision, published_ns: int) -> None:
        self.dropped += decision.dropped
        for camera in decision.late:
            self.cut_off[camera] += 1
        for camera in decision.skipped:
            self.skipped[camera] += 1
        use = self.levels.setdefault(decision.level, LevelUse())
        use.ticks += 1
        use.duration_ns += published_ns - (published_ns if self._published_ns is None else self._published_ns)
        self._published_ns = published_ns

    def stages(self) -> list[LedgerRow]:
        """The stages' charges per tick, then `waiting`, then what no budget was made for."""
        return [self._row(name, row) for name, row in self._stages.items()]

    def end_to_end(self) -> LedgerRow:
        """From the earliest arrival to publication."""
        return self._row("end to end", self._end_to_end)

    def data_age(self) -> LedgerRow:
        """From the newest capture to publication."""
        return self._row("data age", self._age)

    def cameras(self) -> dict[str, dict[str, Percentiles]]:
        """Each camera's own spans: camera, then stage."""
        table: dict[str, dict[str, Percentiles]] = {}
        for (camera, stage), histogram in self._per_camera.items():
            table.setdefault(camera, {})[stage] = histogram.percentiles()
        return table

    def worst(self) -> list[tuple[int, TickTimes]]:
        """The slowest ticks, slowest first, with their full timelines."""
        return [(tick, times) for _, tick, times in sorted(self._worst, key=lambda w: (-w[0], w[1]))]

    def _of_camera(self, camera: str, stage: str) -> Histogram:
        if (camera, stage) not in self._per_camera:
            self._per_camera[camera, stage] = Histogram()
        return self._per_camera[camera, stage]

    @staticmethod
    def _row(name: str, row: _Row) -> LedgerRow:
        budget_ms = None if row.budget_ns is None else row.budget_ns / _NS_PER_MS
        return LedgerRow(name, budget_ms, row.overruns, row.histogram.percentiles())


def breaches(ledger: Ledger) -> list[str]:
    """What of an account breaks its budget, a line each; none where it holds.

    A tick that is late does, a stage whose p99 exceeds its budget, and the world is closed: so does a stage that has no
    budget, and a budget whose stage was never at work. Enforcement keeps ticks on time by leaving work out, and what is
    left out costs nothing; so where more than one tick in a hundred had to do without something, that is a breach too.
    """
    found = [problem for row in ledger.stages() if (problem := _breach(row)) is not None]
    if ledger.late:
        found.append(f"{ledger.late} of {ledger.ticks} ticks were late")
    below = sum(use.ticks for level, use in ledger.levels.items() if level)
    left_out = {"dropped": ledger.dropped, "on a lower level of the ladder": below}
    left_out |= {f"without {camera}, which was cut off": count for camera, count in ledger.cut_off.items()}
    for what, count in left_out.items():
        if count > _TOLERATED * ledger.ticks:
            found.append(f"{count} of {ledger.ticks} ticks were {what}")
    return found


def _breach(row: LedgerRow) -> str | None:
    worked = row.measured.count > 0 and row.measured.max > 0
    if row.name == WAITING:
        return None
    if row.budget_ms is None:
        return f"{row.name}: no budget, and it was at work" if worked else None
    if not worked:
        return f"{row.name}: a budget of {row.budget_ms:g} ms, and it was never at work"
    if row.measured.p99 > row.budget_ms:
        return f"{row.name}: p99 of {row.measured.p99:.2f} ms, over its budget of {row.budget_ms:g} ms"
    return None
