"""Time: the machine's monotonic clock, and its tie to the time line of the data.

Latencies and deadlines are only ever measured with `now_ns`. A clock also says when a moment of the data's time
line is due: at once in stepped replay, at the recording's own pace in real-time replay.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What paces a source and times the ticks."""

    stepped: bool
    """True when the recording's time stands still while a tick is worked on, so nothing can be late."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""

    def due_ns(self, stamp_ns: int) -> int:
        """The monotonic time at which `stamp_ns` is due; the past, or now, for what need not be waited for."""

    def wait_until(self, stamp_ns: int) -> int:
        """Sleep until the data's time line reaches `stamp_ns`; the monotonic time of that moment."""

    def stamp_ns(self) -> int:
        """Where the data's time line stands now."""


def seconds_until(until_ns: int | None, now_ns: int) -> float | None:
    """How long to wait, as the standard library's timeouts have it: None, for as long as it takes, stays None."""
    return None if until_ns is None else max(0.0, (until_ns - now_ns) * 1e-9)


class RealTimeReplayClock:
    """The recording's time runs at the pace of the wall clock, from the first stamp that is waited for."""

    stepped = False

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def due_ns(self, stamp_ns: int) -> int:
        """When `stamp_ns` is due: now, for the first one that is asked for."""
        if self._offset_ns is None:
            self._offset_ns = self.now_ns() - stamp_ns
        return stamp_ns + self._offset_ns

    def wait_until(self, stamp_ns: int) -> int:
        """Sleep until `stamp_ns` is due and return when it *was* due, so that waking late counts as latency."""
        due_ns = self.due_ns(stamp_ns)
        wait_ns = due_ns - self.now_ns()
        if wait_ns > 0:
            time.sleep(wait_ns * 1e-9)
        return due_ns

    def stamp_ns(self) -> int:
        """Where the recording stands now."""
        return self.now_ns() - (self._offset_ns or 0)


class SteppedClock:
    """The recording's time jumps from stamp to stamp: every frame is processed, however long that takes."""

    stepped = True

    def __init__(self) -> None:
        self._stamp_ns = 0

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def due_ns(self, stamp_ns: int) -> int:  # noqa: ARG002 (the same for all)
        """Now."""
        return self.now_ns()

    def wait_until(self, stamp_ns: int) -> int:
        """Jump to `stamp_ns`; never sleeps."""
        self._stamp_ns = max(self._stamp_ns, stamp_ns)
        return self.now_ns()

    def stamp_ns(self) -> int:
        """Where the recording stands."""
        return self._stamp_ns


class LiveClock:
    """The vehicle's time: the epoch as the wall clock told it at start, carried on by the monotonic clock.

    A wall clock that is stepped later, by NTP or a satellite receiver, disturbs neither ticks nor stamps.
    """

    stepped = False

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def due_ns(self, stamp_ns: int) -> int:
        """The monotonic time at which the vehicle's time was or will be `stamp_ns`."""
        return stamp_ns - self._offset_ns

    def wait_until(self, stamp_ns: int) -> int:
        """Sleep until `stamp_ns`; the monotonic time of that moment."""
        due_ns = self.due_ns(stamp_ns)
        time.sleep(max(0, due_ns - self.now_ns()) * 1e-9)
        return due_ns

    def stamp_ns(self) -> int:
        """The vehicle's time now, in nanoseconds since the epoch."""
        return self.stamp_of(self.now_ns())

    def stamp_of(self, monotonic_ns: int) -> int:
        """The vehicle's time at a moment of the monotonic clock, such as a driver's time stamp."""
        return monotonic_ns + self._offset_ns
