from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.config import SyncConfig
from perception.ingest.synchroniser import Group, Synchroniser

MS = 1_000_000
START = 1_700_000_000_000 * MS
CONFIG = SyncConfig(window_ms=50, max_gap_s=60)


def synchroniser(*cameras: str) -> Synchroniser[str]:
    return Synchroniser(cameras, CONFIG)


def contents(groups: list[Group[str]]) -> list[list[str]]:
    return [list(group.frames.values()) for group in groups]


def test_a_set_closes_with_its_last_camera_and_keeps_the_rigs_order() -> None:
    sync = synchroniser("left", "right")
    assert sync.add("right", START + 3 * MS, START + 10 * MS, "r0") == []
    (group,) = sync.add("left", START, START + 12 * MS, "l0")
    assert list(group.frames) == ["left", "right"]
    assert (group.stamp_ns, group.skew_ns) == (START + 3 * MS, 3 * MS)
    assert group.closed_ns == START + 12 * MS
    assert sync.faults() == []


def test_a_frame_of_a_later_tick_closes_the_set_without_the_missing_camera() -> None:
    sync = synchroniser("left", "right")
    sync.add("left", START, START, "l0")
    groups = sync.add("right", START + 100 * MS, START + 40 * MS, "r1")  # it arrived early, within the window
    assert contents(groups) == [["l0"]]
    assert groups[0].closed_ns == START + 40 * MS
    assert contents(sync.add("left", START + 100 * MS, START + 41 * MS, "l1")) == [["l1", "r1"]]


def test_a_missing_camera_is_waited_for_no_longer_than_the_window() -> None:
    sync = synchroniser("left", "right")
    sync.add("left", START, START, "l0")
    assert sync.expire(START + 50 * MS) == []
    (group,) = sync.expire(START + 300 * MS)
    assert contents([group]) == [["l0"]]
    assert group.closed_ns == START + 50 * MS


def test_a_frame_that_comes_after_its_tick_is_dropped_and_counted() -> None:
    sync = synchroniser("left", "right")
    sync.add("left", START, START, "l0")
    sync.expire(START + 60 * MS)
    assert sync.add("right", START + 2 * MS, START + 70 * MS, "r0") == []
    assert contents(sync.add("left", START + 100 * MS, START + 100 * MS, "l1")) == []
    assert sync.add("right", START + 3 * MS, START + 101 * MS, "r0 again") == []
    assert contents(sync.add("right", START + 100 * MS, START + 102 * MS, "r1")) == [["l1", "r1"]]
    (line,) = sync.faults()
    assert "right: frame dropped" in line
    assert "after its tick had closed; ticks are open for 50 ms (and 1 more like it)" in line


def test_cameras_faster_than_the_window_keep_their_ticks_apart() -> None:
    sync = synchroniser("left", "right")
    seen = []
    for tick in range(6):
        at = START + tick * 33 * MS
        seen += sync.add("left", at, at, f"l{tick}")
        if tick != 3:
            seen += sync.add("right", at + MS, at + MS, f"r{tick}")
    assert contents(seen) == [["l0", "r0"], ["l1", "r1"], ["l2", "r2"], ["l3"], ["l4", "r4"], ["l5", "r5"]]


@pytest.mark.parametrize(
    ("stamps", "kept", "reason"),
    [
        ((START, -1), 1, "not a time stamp"),
        ((START, 2**63), 1, "not a time stamp"),
        ((START, START), 1, "had the same stamp"),
        ((START, START - MS, START + 100 * MS), 2, "the frame before was captured at"),
        ((START, START + 61_000 * MS, START + 100 * MS), 2, "61.000 s after all others, sync.max_gap_s is 60"),
    ],
)
def test_stamps_that_cannot_be_true_are_dropped_and_counted(stamps: tuple[int, ...], kept: int, reason: str) -> None:
    sync = synchroniser("front")
    groups = [group for stamp in stamps for group in sync.add("front", stamp, START, "")]
    assert len(groups) == kept
    (line,) = sync.faults()
    assert line.startswith("front: frame dropped, captured at ")
    assert reason in line


def test_a_pause_in_the_recording_costs_one_frame() -> None:
    sync = synchroniser("front")
    later = START + 3_600_000 * MS
    stamps = [START, START + 100 * MS, later, later + 100 * MS, later + 200 * MS]
    groups = [group for stamp in stamps for group in sync.add("front", stamp, stamp, "")]
    assert [group.stamp_ns for group in groups] == [START, START + 100 * MS, later + 100 * MS, later + 200 * MS]
    assert len(sync.faults()) == 1


def test_one_absurd_stamp_does_not_take_the_other_cameras_with_it() -> None:
    sync = synchroniser("left", "right")
    seen = sync.add("left", START, START, "l0") + sync.add("right", START, START, "r0")
    seen += sync.add("left", 2**62, START + 100 * MS, "absurd")
    seen += sync.add("right", START + 100 * MS, START + 100 * MS, "r1")
    seen += sync.add("left", START + 200 * MS, START + 200 * MS, "l2")
    seen += sync.add("right", START + 200 * MS, START + 201 * MS, "r2")
    assert contents(seen) == [["l0", "r0"], ["r1"], ["l2", "r2"]]


def test_a_second_frame_of_one_camera_in_one_tick_is_dropped() -> None:
    sync = synchroniser("left", "right", "rear")
    sync.add("right", START, START, "r0")
    sync.add("left", START + 10 * MS, START + 10 * MS, "l0")
    sync.add("right", START + 5 * MS, START + 11 * MS, "r again")
    assert contents(sync.flush()) == [["l0", "r0"]]
    (line,) = sync.faults()
    assert "its tick has a frame of this camera already" in line


@dataclass(frozen=True)
class Shot:
    camera: str
    tick: int
    capture_ns: int


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[str], list[Shot]]:
    """Frames of evenly running cameras with a skew of their own, jitter, and gaps in all but the first camera."""
    cameras = [f"camera{i}" for i in range(draw(st.integers(1, 4)))]
    period_ns = draw(st.sampled_from((33, 50, 100, 1000))) * MS
    window_ns = min(50 * MS, 0.74 * period_ns)  # jitter shortens a period
    spread_ns = int(0.9 * min(window_ns, period_ns - window_ns))
    skews = [draw(st.integers(0, int(0.95 * spread_ns))) for _ in cameras]
    shots = []
    for tick in range(draw(st.integers(1, 8))):
        for i, camera in enumerate(cameras):
            if i == 0 or tick == 0 or draw(st.integers(0, 4)) > 0:
                jitter = draw(st.integers(0, int(0.004 * spread_ns)))
                shots.append(Shot(camera, tick, START + tick * period_ns + skews[i] + jitter))
    return cameras, shots


@given(recordings())
@settings(deadline=None, max_examples=60)
def test_frames_of_a_tick_come_together_whatever_is_missing(recording: tuple[list[str], list[Shot]]) -> None:
    cameras, shots = recording
    sync: Synchroniser[Shot] = Synchroniser(cameras, CONFIG)
    groups = []
    for shot in sorted(shots, key=lambda s: s.capture_ns):
        groups += sync.add(shot.camera, shot.capture_ns, shot.capture_ns, shot)
    groups += sync.flush()
    assert sync.faults() == []
    by_tick = [[shot for shot in shots if shot.tick == tick] for tick in range(shots[-1].tick + 1)]
    assert [list(group.frames.values()) for group in groups] == by_tick


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("a", "b", "c")),
            st.one_of(st.integers(-5, 400), st.integers(-5, 400), st.sampled_from((2**62, 2**63, -(2**70)))),
            st.integers(0, 60),
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=300)
def test_whatever_comes_sets_are_consistent(arrivals: list[tuple[str, int, int]]) -> None:
    sync: Synchroniser[int] = Synchroniser(("a", "b", "c"), CONFIG)
    groups: list[Group[int]] = []
    now = 0
    for number, (camera, capture_ms, wait_ms) in enumerate(arrivals):
        now += wait_ms * MS
        groups += sync.add(camera, capture_ms * MS if abs(capture_ms) < 1000 else capture_ms, now, number)
    groups += sync.flush()
    stamps = [group.stamp_ns for group in groups]
    assert stamps == sorted(set(stamps))
    frames = [frame for group in groups for frame in group.frames.values()]
    assert len(frames) == len(set(frames)) <= len(arrivals)
    for group in groups:
        assert group.frames.keys() == group.captures_ns.keys()
        assert group.skew_ns <= 50 * MS
    for camera in ("a", "b", "c"):
        captures = [group.captures_ns[camera] for group in groups if camera in group.captures_ns]
        assert captures == sorted(set(captures))
    closed = [group.closed_ns for group in groups]
    assert closed == sorted(closed)


def test_who_is_due_is_told_by_the_last_frames_and_their_period() -> None:
    sync = synchroniser("a", "b", "slow")
    assert sync.due() == []
    for tick in range(41):
        at = START + tick * 100 * MS
        if tick % 10 == 0:
            sync.add("slow", at, at, "slow")
        sync.add("b", at, at, "b")
        if tick < 40:
            sync.add("a", at, at, "a")
            sync.flush()
    assert sync.opened_ns == at
    assert sync.due() == ["a"]
    sync.flush()

    due = []
    for tick in range(41, 52):  # a is gone
        at = START + tick * 100 * MS
        sync.add("b", at, at, "b")
        due.append(sync.due())
        sync.flush()
    assert due == [["a"], ["a"], *[[]] * 7, ["slow"], ["slow"]]


def test_a_camera_that_skipped_a_frame_is_still_due() -> None:
    sync = synchroniser("a", "b")
    due = []
    for tick in range(8):
        at = START + tick * 100 * MS
        sync.add("b", at, at, "b")
        due.append(sync.due())
        if tick not in {2, 5}:
            sync.add("a", at, at, "a")
        sync.flush()
    assert due == [["a"]] * 8


def test_a_camera_that_is_not_known_yet_is_due_for_three_ticks() -> None:
    sync = synchroniser("a", "b")
    due = []
    for tick in range(5):
        sync.add("b", START + tick * 100 * MS, START, "b")
        due.append(sync.due())
        sync.flush()
    assert due == [["a"], ["a"], ["a"], [], []]


def test_after_a_pause_of_all_cameras_all_are_due() -> None:
    sync = synchroniser("a", "b")
    for tick in (0, 1, 2, 3, 200, 201):
        at = START + tick * 100 * MS
        sync.add("b", at, at, "b")
        assert sync.due() == ["a"]
        sync.add("a", at, at, "a")
