from __future__ import annotations

from perception.clock import RealTimeReplayClock, SteppedClock

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
