from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from perception.ingest.cameras.stream_time import StreamTime

MS = 1_000_000
SECOND = 1_000 * MS
FAR = 7_000_000 * SECOND


@given(st.lists(st.integers(0, 200), min_size=1, max_size=50))
def test_delays_beyond_the_least_are_found_and_nothing_is_sent_after_it_arrived(delays_ms: list[int]) -> None:
    stream = StreamTime()
    for number, delay_ms in enumerate(delays_ms):
        stamp_ns = number * 100 * MS
        arrival_ns = FAR + stamp_ns + delay_ms * MS
        held_up_ns = arrival_ns - stream.sent_ns(stamp_ns, arrival_ns)
        least_ms = min(delays_ms[: number + 1])
        drift_ns = (number + 2) * 300 * MS // 1000
        assert 0 <= held_up_ns <= (delay_ms - least_ms) * MS
        assert held_up_ns >= (delay_ms - least_ms) * MS - drift_ns


def test_pictures_that_come_in_a_bunch_after_a_stall_are_old() -> None:
    stream = StreamTime()
    for number in range(10):
        stream.sent_ns(number * 100 * MS, FAR + number * 100 * MS)
    ages_ns = [FAR + 2 * SECOND - stream.sent_ns(number * 100 * MS, FAR + 2 * SECOND) for number in range(10, 20)]
    assert all(age_ns > 90 * MS for age_ns in ages_ns)
    assert all(90 * MS < a - b < 110 * MS for a, b in pairwise(ages_ns))


def test_a_clock_that_runs_slower_is_followed() -> None:
    stream = StreamTime()
    for number in range(10_000):
        arrival_ns = FAR + number * 100 * MS
        sent_ns = stream.sent_ns(number * 99_990 * 1000, arrival_ns)  # 100 parts per million
    assert arrival_ns - sent_ns < MS


def test_a_stream_that_is_set_back_or_ahead_begins_anew() -> None:
    for jump_ns in (-3600 * SECOND, 3600 * SECOND):
        stream = StreamTime()
        stream.sent_ns(7200 * SECOND, FAR)
        ages_ns = [
            FAR + after * MS - stream.sent_ns(7200 * SECOND + jump_ns + after * MS, FAR + after * MS)
            for after in (100, 200, 300)
        ]
        assert all(abs(age_ns) < MS for age_ns in ages_ns)
