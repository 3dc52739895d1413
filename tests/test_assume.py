from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.assume import (
    PROBABILITIES,
    AssumedChannel,
    AssumedFusion,
    AssumedOutput,
    AssumedSource,
    Costs,
    Profile,
    VirtualClock,
    load_profile,
    quantile,
    uniform,
)
from perception.config import CONFIGS, FusionConfig
from perception.errors import ConfigError
from perception.fusion.camera_fusion import CameraFusion
from perception.governor import Undisturbed
from perception.messages import Detections, Frame, FrameSet, Span, StageSpan, TrackSet
from perception.stages import Begin
from tests.output.samples import make_rig

EXAMPLE = CONFIGS / "profiles" / "example-orin.yaml"


# --- the profile


def test_the_example_says_in_every_place_that_it_is_one() -> None:
    assert "EXAMPLE" in EXAMPLE.read_text().splitlines()[0]
    profile = load_profile(EXAMPLE)
    assert "EXAMPLE" in profile.about
    assert "not a measurement" in profile.about
    assert profile.ticks == 0


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("fusion_ms", [0, 1, 2, 3, 4, 3.9], "quantiles must not fall"),
        ("fusion_ms", [0, 1, 2, 3, 4], "fusion_ms"),
        ("fusion_ms", [-1, 1, 2, 3, 4, 5], "greater than or equal to 0"),
        ("fusion_ms", [0, 1, 2, 3, 4, 1e9], "less than or equal to 60000"),
        ("fusion_ms", [0, 1, 2, 3, 4, float("nan")], "finite"),
        ("fussion_ms", [0, 1, 2, 3, 4, 5], "did you mean 'fusion_ms'"),
        ("cameras", {str(i): None for i in range(101)}, "at most 100"),
        ("about", "x" * 1001, "at most 1000"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    tree = yaml.safe_load(EXAMPLE.read_text()) | {key: value}
    if key == "cameras":
        tree[key] = dict.fromkeys(value, tree["default"])
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=problem) as refusal:
        load_profile(path)
    assert str(refusal.value).startswith(str(path))


# --- draws


def test_what_is_drawn_is_distributed_as_the_profile_says() -> None:
    profile = load_profile(EXAMPLE)
    costs = Costs(profile, seed=3)
    drawn = np.array([costs.camera_ns("CAM_X", "detect", stamp) for stamp in range(20_000)]) / 1e6
    expected = profile.default.detect_ms
    at = np.quantile(drawn, PROBABILITIES[1:4])
    np.testing.assert_allclose(at, expected[1:4], rtol=0.05)
    assert expected[0] <= drawn.min() < drawn.max() <= expected[-1]


def test_a_camera_that_is_named_has_costs_of_its_own() -> None:
    tree = yaml.safe_load(EXAMPLE.read_text())
    tree["cameras"]["CAM_FRONT"]["nms_ms"] = [9.0] * 6
    costs = Costs(Profile.model_validate(tree), seed=0)
    assert costs.camera_ns("CAM_FRONT", "nms", 1) == 9_000_000
    assert costs.camera_ns("CAM_BACK", "nms", 1) < 3_000_000


def test_draws_depend_on_what_they_are_for_and_on_nothing_that_was_drawn_before() -> None:
    profile = load_profile(EXAMPLE)
    one, other = Costs(profile, seed=0), Costs(profile, seed=0)
    forth = [one.camera_ns("A", "detect", stamp) for stamp in range(10)]
    back = [other.camera_ns("A", "detect", stamp) for stamp in reversed(range(10))][::-1]
    assert forth == back
    assert len(set(forth)) == 10
    assert forth != [one.camera_ns("B", "detect", stamp) for stamp in range(10)]
    assert forth != [Costs(profile, seed=1).camera_ns("A", "detect", stamp) for stamp in range(10)]


def test_draws_are_the_same_on_every_machine() -> None:
    assert uniform(0, "detect/CAM_FRONT", 1_700_000_000_000_000_000) == 0.09578381982921691


@given(
    quantiles=st.lists(st.floats(0, 1e4), min_size=6, max_size=6).map(lambda q: tuple(sorted(q))),
    probability=st.floats(0, 1, exclude_max=True),
)
def test_between_quantiles_it_is_linear(quantiles: tuple[float, ...], probability: float) -> None:
    expected = np.interp(probability, PROBABILITIES, quantiles)
    assert quantile(quantiles, probability) == pytest.approx(expected, rel=1e-9, abs=1e-9)


# --- time


def test_virtual_time_passes_only_where_it_is_said_to_and_never_goes_back() -> None:
    clock = VirtualClock()
    assert clock.wait_until(100) == 100
    assert clock.now_ns() == clock.stamp_ns() == 0
    clock.advance_to(100)
    clock.advance_to(90)
    assert clock.now_ns() == clock.stamp_ns() == 100
    assert clock.due_ns(10**18) <= clock.now_ns()


# --- parts that take as long as the profile says

MS = 1_000_000
COSTS = {"ingest_ms": 5, "queue_ms": 1, "preprocess_ms": 2, "detect_ms": 4, "nms_ms": 1}


def fixed(**cameras: dict[str, float]) -> Costs:
    """A profile without chance: `COSTS`, a fusion of 2 ms and an output of 1 ms."""
    named = {name: {key: [value] * 6 for key, value in (COSTS | own).items()} for name, own in cameras.items()}
    default = {key: [value] * 6 for key, value in COSTS.items()}
    tree = {"about": "a test", "machine": "none", "ticks": 0, "default": default, "cameras": named}
    return Costs(Profile.model_validate(tree | {"fusion_ms": [2.0] * 6, "output_ms": [1.0] * 6}), seed=0)


class Finds:
    """A channel that finds as many things as its frame's capture says, at once."""

    def __init__(self) -> None:
        self.frame: Frame | None = None

    def ready(self) -> bool:
        return self.frame is None

    def submit(self, frame: Frame) -> None:
        assert self.ready()
        self.frame = frame

    def collect(self, until_ns: int | None = None) -> tuple[Detections, tuple[StageSpan, ...]] | None:
        assert until_ns is None
        assert self.frame is not None
        frame, self.frame = self.frame, None
        boxes, count = np.zeros((frame.capture_ns, 4), np.float32), frame.capture_ns
        if not count:
            return None
        found = Detections(frame.camera, count, boxes, np.zeros(count, np.float32), np.zeros(count, np.int32))
        return found, (StageSpan("detect", frame.camera, 0, 10**12),)

    def close(self) -> None:
        pass


def make_frame(camera: str, capture_ns: int, arrival_ns: int = 0) -> Frame:
    return Frame(camera, np.ones((1, 1, 3), np.uint8), capture_ns, arrival_ns, Span(0, 0))


def test_a_channel_is_done_when_the_profile_says_so() -> None:
    clock = VirtualClock()
    clock.advance_to(100 * MS)
    channel = AssumedChannel(Finds(), fixed(), clock)
    assert channel.ready()
    channel.submit(make_frame("A", 3))
    assert not channel.ready()
    collected = channel.collect(110 * MS)
    assert collected is not None
    found, spans = collected
    assert len(found) == 3
    assert clock.now_ns() == 108 * MS
    assert spans == (
        StageSpan("preprocess", "A", 101 * MS, 103 * MS),
        StageSpan("detect", "A", 103 * MS, 107 * MS),
        StageSpan("nms", "A", 107 * MS, 108 * MS),
    )
    assert channel.ready()


def test_channels_run_beside_each_other() -> None:
    clock, costs = VirtualClock(), fixed(B={"detect_ms": 1.0})
    channels = {name: AssumedChannel(Finds(), costs, clock) for name in "AB"}
    for name, channel in channels.items():
        channel.submit(make_frame(name, 1))
    assert all(channel.collect(20 * MS) for channel in channels.values())
    assert clock.now_ns() == 8 * MS


def test_what_takes_longer_is_cut_off_and_the_channel_is_not_ready_until_it_is_done() -> None:
    clock = VirtualClock()
    channel = AssumedChannel(Finds(), fixed(A={"detect_ms": 30.0}), clock)
    channel.submit(make_frame("A", 1))
    assert channel.collect(14 * MS) is None
    assert clock.now_ns() == 14 * MS
    assert not channel.ready()
    clock.advance_to(34 * MS - 1)
    assert not channel.ready()
    clock.advance_to(34 * MS)
    assert channel.ready()
    channel.submit(make_frame("A", 2))
    collected = channel.collect()
    assert collected is not None
    assert len(collected[0]) == 2


def test_a_channel_that_fails_has_nothing_after_its_time() -> None:
    clock = VirtualClock()
    channel = AssumedChannel(Finds(), fixed(), clock)
    channel.submit(make_frame("A", 0))
    assert channel.collect(20 * MS) is None
    assert clock.now_ns() == 8 * MS
    assert channel.ready()


class Enforces(Undisturbed):
    """Waits for decoding for 6 ms, and wants all cameras but C."""

    def wanted(self, tick: int) -> frozenset[str]:
        return super().wanted(tick) - {"C"}

    def ingest_until_ns(self, arrival_ns: int) -> int:
        return arrival_ns + 6 * MS


class Gives:
    """A source of one frame set of cameras A, B and C, as far as they are given."""

    duration_s = 0.0

    def __init__(self, *frames: Frame) -> None:
        self.rig = make_rig("A", "B", "C")
        self._frames = frames

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:  # noqa: ARG002
        captures_ns = [frame.capture_ns for frame in self._frames]
        present = {frame.camera for frame in self._frames}
        missing = tuple(camera for camera in self.rig if camera not in present)
        yield FrameSet(0, max(captures_ns), max(captures_ns) - min(captures_ns), self._frames, missing)

    def faults(self) -> list[str]:
        return ["a fault"]

    def close(self) -> None:
        pass


def assumed(inner: Gives, costs: Costs, clock: VirtualClock, enforcement: Undisturbed) -> AssumedSource:
    return AssumedSource(inner, costs, clock, enforcement, window_ns=50 * MS)


def test_frames_are_at_hand_when_the_last_wanted_one_is_decoded() -> None:
    clock, costs = VirtualClock(), fixed(B={"ingest_ms": 6.0}, C={"ingest_ms": 50.0})
    source = Gives(*(make_frame(name, 1, 100 * MS) for name in "ABC"))
    (frames,) = assumed(source, costs, clock, Enforces(source.rig)).frame_sets()
    assert clock.now_ns() == 106 * MS
    assert [frame.decoded for frame in frames.frames] == [True, True, False]
    assert [frame.ingest for frame in frames.frames[:2]] == [Span(100 * MS, 105 * MS), Span(100 * MS, 106 * MS)]


def test_each_wanted_frame_is_told_of_when_it_is_decoded() -> None:
    clock, costs = VirtualClock(), fixed(A={"ingest_ms": 5.5}, B={"ingest_ms": 4.0})
    source, told = Gives(*(make_frame(name, 1, 100 * MS) for name in "ABC")), list[tuple[int, str, int]]()
    sets = assumed(source, costs, clock, Enforces(source.rig)).frame_sets(
        lambda tick, frame: told.append((tick, frame.camera, clock.now_ns()))
    )
    next(sets)
    assert told == [(0, "B", 104 * MS), (0, "A", 105_500_000)]


def test_what_is_not_decoded_in_time_is_handed_on_without_its_image() -> None:
    clock, costs = VirtualClock(), fixed(B={"ingest_ms": 6.1})
    inner = Gives(*(make_frame(name, 1, 100 * MS) for name in "ABC"))
    source = assumed(inner, costs, clock, Enforces(inner.rig))
    (frames,) = source.frame_sets()
    assert clock.now_ns() == 106 * MS
    assert [frame.decoded for frame in frames.frames] == [True, False, False]
    assert source.faults() == ["a fault"]


def test_without_enforcement_all_is_waited_for() -> None:
    clock, costs = VirtualClock(), fixed(B={"ingest_ms": 500.0})
    source = Gives(make_frame("A", 1, 100 * MS), make_frame("B", 1, 120 * MS), make_frame("C", 1, 120 * MS))
    (frames,) = assumed(source, costs, clock, Undisturbed(source.rig)).frame_sets()
    assert clock.now_ns() == 620 * MS
    assert all(frame.decoded for frame in frames.frames)


def test_who_comes_later_than_a_set_is_waited_for_is_missing_from_it() -> None:
    clock = VirtualClock()
    inner = Gives(make_frame("A", 3, 100 * MS), make_frame("B", 7, 107 * MS), make_frame("C", 5, 106 * MS))
    (frames,) = assumed(inner, fixed(), clock, Enforces(inner.rig)).frame_sets()
    assert clock.now_ns() == 106 * MS
    assert [frame.camera for frame in frames.frames] == ["A", "C"]
    assert (frames.stamp_ns, frames.skew_ns, frames.missing) == (5, 2, ("B",))


@pytest.mark.parametrize(("decider", "at_hand_ms"), [(Enforces, 106), (Undisturbed, 150)])
def test_a_camera_that_does_not_come_is_waited_for_until_its_window_is_over(
    decider: type[Undisturbed], at_hand_ms: int
) -> None:
    clock, inner = VirtualClock(), Gives(make_frame("A", 1, 100 * MS), make_frame("C", 1, 100 * MS))
    (frames,) = assumed(inner, fixed(), clock, decider(inner.rig)).frame_sets()
    assert clock.now_ns() == at_hand_ms * MS
    assert frames.missing == ("B",)


def test_fusion_and_output_take_their_time() -> None:
    clock, costs, rig = VirtualClock(), fixed(), make_rig("A")
    published: list[tuple[int, TrackSet]] = []

    class Keeps:
        def publish(self, tracks: TrackSet) -> None:
            published.append((clock.now_ns(), tracks))

    fusion = AssumedFusion(CameraFusion(rig, FusionConfig()), costs, clock)
    output = AssumedOutput([Keeps(), Keeps()], costs, clock)
    tracks = fusion.update(FrameSet(0, 5, 0, (make_frame("A", 5),), ()), ())
    assert clock.now_ns() == 2 * MS
    output.publish(tracks)
    assert published == [(2 * MS, tracks)] * 2
    assert clock.now_ns() == 3 * MS
