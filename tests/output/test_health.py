from __future__ import annotations

from perception.output.health import Health


def test_short_gaps_between_frames_are_no_quiet() -> None:
    health = Health(2.0)
    health.quiet(0.4)
    assert health.quiet_ns is None
    health.quiet(1.2)
    assert health.quiet_ns is not None


def test_another_state_begins_without_a_tick_and_without_quiet() -> None:
    health = Health(2.0)
    health.quiet(1.2)
    health.begin("running")
    assert (health.on_time_ns, health.quiet_ns) == (None, None)
