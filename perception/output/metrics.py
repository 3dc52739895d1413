"""What Prometheus scrapes: counters and histograms of the ticks, filled in between them.

The thread that ticks adds to plain integers; the thread that is scraped makes the exposition of them. Neither waits for
the other: a scrape may see a tick's histogram without its counter, and the next one sees both.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector

from perception import __version__
from perception.budget import Budget, charge
from perception.messages import Rig, Tick
from perception.output.jetson import Jetson

BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.0125, 0.015, 0.0175, 0.02),
    *(0.025, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0),
)
_THREADS: Final = Path("/proc/self/task")
_BUCKETS_NS: Final = tuple(round(bound * 1e9) for bound in BUCKETS_S)
_LABELS: Final = (*(format(bound, "g") for bound in BUCKETS_S), "+Inf")


class Histogram:
    """Durations in the buckets of `BUCKETS_S`."""

    def __init__(self) -> None:
        self._counts = [0] * len(_LABELS)
        self._sum_ns = 0.0

    def add(self, duration_ns: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_BUCKETS_NS, duration_ns)] += 1
        self._sum_ns += duration_ns

    def expose(self, family: HistogramMetricFamily, labels: tuple[str, ...] = ()) -> None:
        """Add it to its family, in seconds."""
        cumulative = accumulate(self._counts)
        family.add_metric(labels, list(zip(_LABELS, cumulative, strict=True)), self._sum_ns * 1e-9)


class _Watched(NamedTuple):
    name: str
    about: str
    kind: Literal["counter", "gauge"]
    read: Callable[[], float]


class Metrics:
    """Takes in every tick; a collector for `prometheus_client`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.registry.register(Jetson())
        ProcessCollector(registry=self.registry)
        self._watched: list[_Watched] = []
        self._budget: Mapping[str, int] = {}
        self._ticks = self._late = self._dropped = self._level = self._tracks = 0
        self._stages: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._overruns: defaultdict[str, int] = defaultdict(int)
        self._camera_stages: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self._camera_ticks: dict[str, defaultdict[str, int]] = {
            fate: defaultdict(int) for fate in ("used", "missing", "skipped", "cut_off")
        }
        self._arrived_ns: dict[str, int] = {}
        self._end_to_end, self._age, self._skew = Histogram(), Histogram(), Histogram()

    def begin(self, budget: Budget, rig: Rig) -> None:
        """From now on ticks are of these cameras, and are held against this budget."""
        self._budget = {**budget.stage_ns, "end_to_end": budget.end_to_end_ns}
        self._arrived_ns = dict.fromkeys(rig, time.monotonic_ns())

    def watch(self, kind: Literal["counter", "gauge"], name: str, about: str, read: Callable[[], float]) -> None:
        """Give what `read` returns at each scrape, from now on."""
        self._watched.append(_Watched(name, about, kind, read))

    def record(self, tick: Tick) -> None:
        """Take in one tick."""
        decision, times = tick.tracks.decision, tick.times
        self._ticks += 1
        self._late += not decision.deadline_met
        self._dropped += decision.dropped
        self._level = decision.level
        self._tracks = len(tick.tracks.tracks)
        self._end_to_end.add(times.end_to_end_ns)
        self._age.add(decision.age_ns)
        self._skew.add(tick.frames.skew_ns)
        charges = {**charge(times), "end_to_end": times.end_to_end_ns}
        for stage, spent_ns in charges.items():
            if stage != "end_to_end":
                self._stages[stage].add(spent_ns)
            if spent_ns > self._budget.get(stage, spent_ns):
                self._overruns[stage] += 1
        for stage, camera, start_ns, end_ns in times.spans:
            if camera:
                self._camera_stages[camera, stage].add(end_ns - start_ns)
        for frame in tick.frames.frames:
            self._arrived_ns[frame.camera] = frame.arrival_ns
        self._count("used", (found.camera for found in tick.detections))
        self._count("missing", tick.frames.missing)
        self._count("skipped", decision.skipped)
        self._count("cut_off", decision.late)

    def close(self) -> None:
        """Nothing to be closed."""

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of an answer to a scrape with this ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Expose all of it."""
        yield InfoMetricFamily("perception", "What runs", {"version": __version__})
        yield CounterMetricFamily("perception_ticks", "Track sets published", self._ticks)
        yield CounterMetricFamily("perception_ticks_late", "Of those, published after their deadline", self._late)
        yield CounterMetricFamily(
            "perception_ticks_dropped", "Of those, predictions only: the frames came too old", self._dropped
        )
        yield GaugeMetricFamily(
            "perception_ladder_level", "Rung of the degradation ladder, 0 for everything", self._level
        )
        yield GaugeMetricFamily("perception_tracks", "Tracks in the last track set", self._tracks)
        yield from self._durations()
        yield from self._budgets()
        yield from self._cameras()
        yield GaugeMetricFamily("process_threads", "Threads of the process", sum(1 for _ in _THREADS.iterdir()))
        for name, about, kind, read in self._watched:
            yield (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, about, read())

    def _count(self, fate: str, cameras: Iterator[str] | tuple[str, ...]) -> None:
        counts = self._camera_ticks[fate]
        for camera in cameras:
            counts[camera] += 1

    def _durations(self) -> Iterator[Metric]:
        for name, about, histogram in (
            ("end_to_end", "From the first frame's arrival to publication", self._end_to_end),
            ("data_age", "From the newest capture to publication", self._age),
            ("skew", "From the oldest to the newest capture of a tick", self._skew),
        ):
            family = HistogramMetricFamily(f"perception_{name}_seconds", about)
            histogram.expose(family)
            yield family
        family = HistogramMetricFamily(
            "perception_stage_seconds", "A tick's time, charged to its stages", labels=["stage"]
        )
        for stage, histogram in list(self._stages.items()):
            histogram.expose(family, (stage,))
        yield family
        family = HistogramMetricFamily(
            "perception_camera_stage_seconds", "How long a stage worked on a camera's frame", labels=["camera", "stage"]
        )
        for camera_and_stage, histogram in list(self._camera_stages.items()):
            histogram.expose(family, camera_and_stage)
        yield family

    def _budgets(self) -> Iterator[Metric]:
        budget = GaugeMetricFamily("perception_budget_seconds", "What a stage may take of a tick", labels=["stage"])
        overruns = CounterMetricFamily("perception_overruns", "Ticks in which a stage took more", labels=["stage"])
        for stage, allowed_ns in self._budget.items():
            budget.add_metric([stage], allowed_ns * 1e-9)
            overruns.add_metric([stage], self._overruns.get(stage, 0))
        yield budget
        yield overruns

    def _cameras(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "perception_camera_ticks",
            "Ticks by what became of a camera's frame: used, missing, skipped, cut_off",
            labels=["camera", "frame"],
        )
        for fate, counts in self._camera_ticks.items():
            for camera in list(self._arrived_ns):
                frames.add_metric([camera, fate], counts.get(camera, 0))
        yield frames
        fresh = GaugeMetricFamily(
            "perception_camera_silent_seconds", "Since a camera's last frame, or since the start", labels=["camera"]
        )
        now_ns = time.monotonic_ns()
        for camera, arrived_ns in list(self._arrived_ns.items()):
            fresh.add_metric([camera], (now_ns - arrived_ns) * 1e-9)
        yield fresh
