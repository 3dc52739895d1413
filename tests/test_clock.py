from __future__ import annotations

import time

import pytest

from perception.clock import LiveClock, RealTimeReplayClock, SteppedClock

MS = 1_000_000


def test_real_time_replay_keeps_the_recordings_pace() -> None:
    clock = RealTimeReplayClock()
    first = clock.wait_until(1_000_000 * MS)
    second = clock.wait_until(1_000_030 * MS)
    assert second - first == 30 * MS
    assert clock.now_ns() >= second
    assert clock.stamp_ns() >= 1_000_030 * MS


def test_a_moment_that_has_passed_was_due_when_it_was_due() -> None:
    clock = RealTimeReplayClock()
    first = clock.wait_until(100 * MS)
    clock.wait_until(120 * MS)
    assert clock.wait_until(110 * MS) == first + 10 * MS


def test_stepped_time_jumps_and_never_runs_back() -> None:
    clock = SteppedClock()
    before = clock.now_ns()
    assert clock.wait_until(10**18) - before < 10**9
    clock.wait_until(5)
    assert clock.stamp_ns() == 10**18


def test_the_vehicles_time_is_the_epoch_and_a_stepped_wall_clock_does_not_disturb_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = LiveClock()
    epoch_ns = time.time_ns()
    assert abs(clock.stamp_ns() - epoch_ns) < 1000 * MS
    real_time_ns = time.time_ns
    for hours in (1, -1):
        monkeypatch.setattr(time, "time_ns", lambda hours=hours: real_time_ns() + hours * 3600 * 1000 * MS)
        assert abs(time.time_ns() - epoch_ns) > 3000 * 1000 * MS
        assert abs(clock.stamp_ns() - epoch_ns) < 10_000 * MS
        captured = time.monotonic_ns()
        assert clock.due_ns(clock.stamp_of(captured)) == captured
        due = clock.wait_until(clock.stamp_of(captured) + 5 * MS)
        assert due == captured + 5 * MS
        assert clock.now_ns() >= due
