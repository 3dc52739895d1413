"""The last seconds of a drive in memory."""

from __future__ import annotations

from collections import deque
from typing import Final

from perception.messages import Tick

_TICK_BYTES: Final = 4_000
_TRACK_BYTES: Final = 1_500
_BOX_BYTES: Final = 100


class Ring:
    """The newest ticks: no more than `max_bytes` of them, and no further back than `span_ns`.

    An event that is being written wants ticks too: those stay beyond `span_ns` until they are taken, but `max_bytes`
    holds for them as well; what it costs them is counted in `lost`. Time is the data's; where it jumps back, what was
    before the jump is let go.
    """

    def __init__(self, span_ns: int, max_bytes: int) -> None:
        self.lost = 0
        self._span_ns = span_ns
        self._max_bytes = max_bytes
        self._ticks: deque[tuple[Tick, int]] = deque()
        self._bytes = 0
        self.wanted = 0
        """How many of the newest an event still wants."""

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, tick: Tick, *, wanted: bool) -> None:
        """Take in the newest tick; the oldest make room for it."""
        size = size_of(tick)
        self._ticks.append((tick, size))
        self._bytes += size
        self.wanted += wanted
        while self._bytes > self._max_bytes or (len(self._ticks) > self.wanted and self._is_old(tick)):
            self._bytes -= self._ticks.popleft()[1]
            if self.wanted > len(self._ticks):
                self.wanted -= 1
                self.lost += 1

    def want_all(self) -> None:
        """From now on all that is here is wanted."""
        self.wanted = len(self._ticks)

    def want_none(self) -> None:
        """Nothing of what is here is wanted any more."""
        self.wanted = 0

    def take(self) -> Tick | None:
        """The oldest tick that is wanted, and now no longer is; it stays here for its time."""
        if not self.wanted:
            return None
        tick = self._ticks[-self.wanted][0]
        self.wanted -= 1
        return tick

    def _is_old(self, newest: Tick) -> bool:
        return abs(newest.frames.stamp_ns - self._ticks[0][0].frames.stamp_ns) > self._span_ns


def size_of(tick: Tick) -> int:
    """About how many bytes a tick takes in memory."""
    images = sum(
        frame.image.nbytes + (0 if frame.encoded is None else len(frame.encoded.data)) for frame in tick.frames.frames
    )
    boxes = sum(map(len, tick.detections))
    return images + _TICK_BYTES + _TRACK_BYTES * len(tick.tracks.tracks) + _BOX_BYTES * boxes
