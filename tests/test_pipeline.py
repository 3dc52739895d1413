from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from perception.budget import Budget, Ledger
from perception.governor import Enforcement, Governor, Recorded, Rung, Settings, Undisturbed, everything
from perception.messages import (
    NO_IMAGE,
    UNDISTURBED,
    Decision,
    Detections,
    Frame,
    FrameSet,
    Image,
    Rig,
    Span,
    StageSpan,
    Tick,
    TrackSet,
)
from perception.pipeline import Pipeline
from perception.stages import Begin
from tests.output.samples import make_rig

MS = 1_000_000
PERIOD_NS = 100 * MS
START_NS = 1_700_000_000_000_000_000
BUDGET = Budget(
    20 * MS, {"ingest": 5 * MS, "preprocess": 2 * MS, "detect": 8 * MS, "nms": MS, "fusion": 2 * MS, "output": MS}
)
CAMERAS = ("F", "L", "B")
RIG = make_rig(*CAMERAS)
IMAGE = np.zeros((1, 1, 3), np.uint8)
LADDER = (everything(CAMERAS), Rung("front only", {"F": 1}, alarm=True))
RESERVE_NS = 5_625_000  # for fusion and output, in the first ticks


@dataclass
class VirtualClock:
    """Time that passes when a part says so."""

    stepped: bool = False
    now: int = 0

    def now_ns(self) -> int:
        return self.now

    def due_ns(self, stamp_ns: int) -> int:
        return stamp_ns - START_NS

    def wait_until(self, stamp_ns: int) -> int:
        self.now = max(self.now, self.due_ns(stamp_ns))
        return self.now

    def stamp_ns(self) -> int:
        return START_NS + self.now


@dataclass
class Channel:
    """Takes `cost_ns` from when its frame was submitted; when it is cut off, it is busy until then."""

    camera: str
    clock: VirtualClock
    log: list[str]
    collected: list[str]
    cost_ns: int = 3 * MS
    fails: bool = False
    busy_until_ns: int = 0
    frame: Frame | None = None

    def ready(self) -> bool:
        return self.clock.now >= self.busy_until_ns

    def submit(self, frame: Frame) -> None:
        assert self.ready()
        assert frame.decoded
        self.log.append(self.camera)
        self.frame, self.busy_until_ns = frame, self.clock.now + self.cost_ns

    def collect(self, until_ns: int | None = None) -> tuple[Detections, tuple[StageSpan, ...]] | None:
        assert self.frame is not None
        self.collected.append(self.camera)
        frame, self.frame = self.frame, None
        done = self.busy_until_ns
        if until_ns is not None and done > until_ns:
            self.clock.now = max(self.clock.now, until_ns)
            return None
        self.clock.now = max(self.clock.now, done)
        if self.fails:
            return None
        none = np.zeros(0, np.float32)
        found = Detections(self.camera, frame.capture_ns, none.reshape(0, 4), none, none.astype(np.int32))
        begun = done - self.cost_ns
        return found, (
            StageSpan("preprocess", self.camera, begun, begun),
            StageSpan("detect", self.camera, begun, done),
            StageSpan("nms", self.camera, done, done),
        )

    def close(self) -> None:
        pass


@dataclass
class Fusion:
    clock: VirtualClock
    cost_ns: int = MS
    looked: list[tuple[str, ...]] = field(default_factory=list)

    def update(self, frames: FrameSet, detections: Sequence[Detections]) -> TrackSet:
        self.looked.append(tuple(found.camera for found in detections))
        self.clock.now += self.cost_ns
        return TrackSet(frames.tick, frames.stamp_ns, frames.skew_ns, frames.missing, ())


@dataclass
class Source:
    """Frame sets that come every 100 ms and are at hand `delay_ns` later; `undecoded` cameras have no image.

    `early` cameras are told of when they are decoded, so long after the arrival. The sets of `lost` ticks do not come.
    """

    clock: VirtualClock
    ticks: int
    delay_ns: int = 2 * MS
    undecoded: tuple[str, ...] = ()
    early: Mapping[str, int] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    rig: Rig = field(default_factory=lambda: RIG)

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:
        for tick in range(self.ticks):
            arrival = (tick + 1) * PERIOD_NS
            for camera, decoded_ns in self.early.items():
                self.clock.now = max(self.clock.now, arrival + decoded_ns)
                assert begin is not None
                begin(tick, self._frame(camera, arrival, IMAGE))
            self.clock.now = max(self.clock.now, arrival + self.delay_ns)
            frames = tuple(self._frame(c, arrival, NO_IMAGE if c in self.undecoded else IMAGE) for c in CAMERAS)
            if tick not in self.lost:
                yield FrameSet(tick, START_NS + arrival, 0, frames, ())

    @staticmethod
    def _frame(camera: str, arrival: int, image: Image) -> Frame:
        return Frame(camera, image, START_NS + arrival, arrival, Span(arrival, arrival + MS))

    def faults(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Published(list[TrackSet]):
    publish = list.append


class Recorder(list[Tick]):
    record = list.append

    def close(self) -> None:
        pass


class Bench:
    """A pipeline in virtual time, on a ladder of two levels with channels of their own."""

    def __init__(self, enforcement: Enforcement | None = None, *, stepped: bool = False) -> None:
        self.clock = VirtualClock(stepped)
        self.log: list[str] = []
        self.collected: list[str] = []
        self.levels = [{c: Channel(c, self.clock, self.log, self.collected) for c in CAMERAS} for _ in LADDER]
        self.fusion = Fusion(self.clock)
        self.published, self.ticks = Published(), Recorder()
        self.ledger = Ledger(BUDGET, CAMERAS)
        settings = Settings(None, window=20, down_after=3, up_after_ns=1000 * MS)
        self.enforcement = enforcement or Governor(LADDER, BUDGET, settings)
        self.pipeline = Pipeline(
            channels=self.levels,
            fusion=self.fusion,
            enforcement=self.enforcement,
            publishers=[self.published],
            recorders=[self.ticks],
            ledger=self.ledger,
            clock=self.clock,
        )

    @property
    def channels(self) -> dict[str, Channel]:
        return self.levels[0]

    def run(self, ticks: int = 1, delay_ns: int = 2 * MS, **of_source: Any) -> list[Decision]:
        for _ in self.pipeline.run(Source(self.clock, ticks, delay_ns, **of_source)):
            pass
        return [tracks.decision for tracks in self.published]


def test_what_is_in_time_is_taken_in_and_published_as_such() -> None:
    bench = Bench()
    # captured at its arrival; 2 ms at hand, 3 ms of channels at once, 1 ms of fusion
    assert bench.run(2) == [Decision(age_ns=6 * MS)] * 2
    assert bench.fusion.looked == [CAMERAS, CAMERAS]
    assert [tick.tracks for tick in bench.ticks] == list(bench.published)
    assert (bench.ledger.ticks, bench.ledger.late) == (2, 0)


def test_a_camera_that_is_late_is_cut_off_and_not_asked_again_until_it_has_drained() -> None:
    bench = Bench()
    bench.channels["L"].cost_ns = 150 * MS
    decisions = bench.run(3)
    cut_off_ns = 20 * MS - RESERVE_NS + MS  # the reserve is kept, and 1 ms of it is what fusion takes
    assert decisions[0] == Decision(late=("L",), age_ns=cut_off_ns)
    assert decisions[1] == Decision(skipped=("L",), age_ns=6 * MS)
    assert decisions[2] == Decision(late=("L",), age_ns=cut_off_ns)
    assert bench.fusion.looked == [("F", "B")] * 3
    assert all(not tick.times.late for tick in bench.ticks)
    assert bench.ledger.cut_off == {"F": 0, "L": 2, "B": 0}
    assert bench.ledger.skipped == {"F": 0, "L": 1, "B": 0}


def test_a_frame_set_that_is_too_old_gives_predictions_at_once() -> None:
    bench = Bench()
    (decision,) = bench.run(delay_ns=18 * MS)
    assert decision == Decision(dropped=True, age_ns=19 * MS)
    assert bench.log == []
    assert bench.fusion.looked == [()]
    assert bench.ledger.dropped == 1
    (tick,) = bench.ticks
    assert tick.detections == ()
    assert tick.times.published_ns == PERIOD_NS + 19 * MS


def test_what_is_published_too_late_says_so() -> None:
    bench = Bench()
    (decision,) = bench.run(delay_ns=30 * MS)
    assert decision == Decision(dropped=True, deadline_met=False, age_ns=31 * MS)
    assert bench.ledger.late == 1


def test_frames_without_image_are_late_where_they_were_wanted() -> None:
    bench = Bench()
    (decision,) = bench.run(undecoded=("L",))
    assert decision == Decision(late=("L",), age_ns=6 * MS)
    assert [span.camera for span in bench.ticks[0].times.spans if span.stage == "ingest"] == ["F", "B"]


def test_a_camera_starts_when_its_own_frame_is_decoded() -> None:
    bench = Bench()
    bench.channels["B"].cost_ns = 5 * MS
    # B has 5 ms to go at 1 ms, the others 3 at 4, when the set is at hand; then 1 ms of fusion
    assert bench.run(2, delay_ns=4 * MS, early={"B": MS}) == [Decision(age_ns=8 * MS)] * 2
    assert bench.log == ["B", "F", "L"] * 2
    assert bench.fusion.looked == [CAMERAS] * 2


def test_who_began_last_is_given_up_on_first_and_detections_stay_in_the_order_of_the_frames() -> None:
    bench = Bench()
    bench.run(delay_ns=4 * MS, early={"B": MS})
    assert bench.log == ["B", "F", "L"]
    assert bench.collected == ["L", "F", "B"]
    assert bench.fusion.looked == [CAMERAS]


def test_a_set_that_comes_late_is_not_dropped_where_a_camera_has_begun() -> None:
    bench = Bench()
    (decision,) = bench.run(delay_ns=14 * MS, early={"F": MS})
    assert decision == Decision(late=("L", "B"), age_ns=20 * MS - RESERVE_NS + MS)
    assert bench.fusion.looked == [("F",)]


def test_a_set_handed_over_just_as_a_frame_was_decoded_has_its_image() -> None:
    bench = Bench()
    (decision,) = bench.run(early={"L": MS}, undecoded=("L",))
    assert decision == Decision(age_ns=6 * MS)
    assert all(frame.decoded for frame in bench.ticks[0].frames.frames)


def test_what_was_begun_for_a_set_that_never_came_is_given_up_on() -> None:
    bench = Bench()
    bench.channels["L"].cost_ns = 103 * MS
    decisions = bench.run(3, early={"L": MS}, lost=(0,))
    # it is still at work on the frame of the lost set when the next one is decoded, and takes the one after that
    assert decisions[0] == Decision(skipped=("L",), age_ns=6 * MS)
    assert decisions[1].late == ("L",)
    assert bench.log == ["L", "F", "B", "L", "F", "B"]


def test_nobody_starts_before_a_camera_that_was_cut_off_until_it_is_in_time_again() -> None:
    bench = Bench()
    early = {"F": MS, "L": MS, "B": 2 * MS}
    bench.channels["B"].cost_ns = 20 * MS
    for _ in bench.pipeline.run(Source(bench.clock, 4, early=early)):
        bench.channels["B"].cost_ns = 3 * MS
    assert "".join(bench.log) == "FLB BFL FLB FLB".replace(" ", "")


def test_the_interpreter_is_handed_back_as_it_was() -> None:
    bench, usual_s = Bench(), sys.getswitchinterval()
    bench.run()
    assert sys.getswitchinterval() == usual_s


def test_a_stage_that_fails_costs_its_camera_the_tick_even_where_no_time_passes() -> None:
    bench = Bench(Undisturbed(RIG), stepped=True)
    bench.channels["B"].fails = True
    assert bench.run(2) == [Decision(late=("B",))] * 2
    assert bench.fusion.looked == [("F", "L")] * 2


def test_stepped_nothing_is_cut_off_and_nothing_is_old() -> None:
    bench = Bench(Undisturbed(RIG), stepped=True)
    bench.channels["B"].cost_ns = 5000 * MS
    assert bench.run(3, delay_ns=50 * MS) == [UNDISTURBED] * 3
    assert bench.fusion.looked == [CAMERAS] * 3
    assert all(tick.times.deadline_ns is None for tick in bench.ticks)


def test_down_the_ladder_and_up_again(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    caplog.set_level(logging.INFO, "perception.pipeline")
    for channel in bench.channels.values():
        channel.cost_ns = 40 * MS
    for tick, channels in enumerate(_while_running(bench, 40)):
        if tick == 20:
            for channel in channels.values():
                channel.cost_ns = MS
    levels = [tracks.decision.level for tracks in bench.published]
    assert levels[:4] == [0, 0, 0, 1]
    assert levels[-1] == 0
    assert sum(a != b for a, b in pairwise(levels)) == len(bench.enforcement.steps)
    assert bench.published[4].decision.skipped == ("L", "B")
    assert [record.levelname for record in caplog.records[:2]] == ["ERROR", "INFO"]
    assert caplog.messages[0] == "tick 2: level 1, front only: 3 of the last 3 ticks overran"
    assert all(tracks.decision.deadline_met for tracks in bench.published)
    use = bench.ledger.levels
    assert use[0].ticks + use[1].ticks == 40
    assert (
        use[0].duration_ns + use[1].duration_ns
        == bench.ticks[-1].times.published_ns - bench.ticks[0].times.published_ns
    )


def _while_running(bench: Bench, ticks: int) -> Iterator[dict[str, Channel]]:
    for _ in bench.pipeline.run(Source(bench.clock, ticks)):
        yield bench.channels


def test_a_level_has_its_own_channels() -> None:
    bench = Bench()
    for channel in bench.channels.values():
        channel.cost_ns = 40 * MS
    bench.levels[1]["F"].cost_ns = 2 * MS
    bench.run(8)
    assert bench.fusion.looked[-1] == ("F",)
    assert bench.published[-1].decision == Decision(1, skipped=("L", "B"), age_ns=5 * MS)


def test_every_frame_set_gives_one_track_set_whatever_happens() -> None:
    rng = np.random.default_rng(4)
    bench = Bench()
    for tick, channels in enumerate(_while_running(bench, 300)):
        for channel in channels.values():
            channel.cost_ns = int(rng.exponential(8 * MS))
            channel.fails = bool(rng.random() < 0.1)
        bench.fusion.cost_ns = int(rng.exponential(MS))
        assert bench.published[-1].tick == tick
    assert len(bench.published) == bench.ledger.ticks == 300
    # fusion that takes more than ever before comes too late now and then, and nothing else does
    assert bench.ledger.late < 6


def test_what_was_decided_can_be_had_again() -> None:
    first = Bench()
    first.channels["L"].cost_ns = 150 * MS
    first.channels["B"].cost_ns = 16 * MS
    decisions = first.run(30)
    recorded = Recorded(LADDER, RIG, dict(enumerate(decisions)))
    again = Bench(recorded, stepped=True)
    again.channels["F"].cost_ns = 500 * MS
    assert again.run(30) == decisions
    assert again.fusion.looked == first.fusion.looked
    assert [step.tick for step in recorded.steps] == [step.tick + 1 for step in first.enforcement.steps]
    assert [replace(tracks, decision=UNDISTURBED) for tracks in again.published] == [
        replace(tracks, decision=UNDISTURBED) for tracks in first.published
    ]
