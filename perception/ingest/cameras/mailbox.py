"""Where a camera leaves its latest frame."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class StaleError(Exception):
    """The latest frame is older than was asked for."""


class Mailbox(Generic[T]):
    """Holds one frame at most: a newer one takes the place of one that nobody took.

    All mailboxes of a source share `arrived`, on which whoever waits for any camera waits.
    """

    def __init__(self, arrived: threading.Condition) -> None:
        self._arrived = arrived
        self._held: tuple[int, T] | None = None
        self.overwritten = 0
        """Frames that nobody took."""
        self.stale = 0
        """Frames that were older than asked for when they were taken."""

    def put(self, capture_ns: int, frame: T) -> None:
        """Leave a frame captured at `capture_ns` of the monotonic clock, and wake who waits."""
        with self._arrived:
            self.overwritten += self._held is not None
            self._held = capture_ns, frame
            self._arrived.notify_all()

    def take(self, now_ns: int, max_age_ns: int) -> T | None:
        """Take out the frame, None where there is no new one; `StaleError` where it is older than `max_age_ns`."""
        with self._arrived:
            held, self._held = self._held, None
        if held is None:
            return None
        capture_ns, frame = held
        if now_ns - capture_ns > max_age_ns:
            self.stale += 1
            raise StaleError(f"{(now_ns - capture_ns) * 1e-6:.0f} ms old, at most {max_age_ns * 1e-6:g} are allowed")
        return frame

    def __bool__(self) -> bool:
        """Whether a frame is held."""
        return self._held is not None
