"""A stream's own time stamps to the machine's clock."""

from __future__ import annotations

from typing import Final

_DRIFT: Final = 1000
"""The clock at the other end runs right to one part in this many, which is ten times worse than any quartz."""
_JUMP_NS: Final = 10_000_000_000


class StreamTime:
    """Tells when pictures were sent that came over a network, from their time stamps and when they arrived.

    The two clocks are taken to be as far apart as the quickest picture took; who took longer was held up on the way by
    the difference, so that pictures which come in a bunch after a stall are known to be old. Pure.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._last_arrival_ns = 0

    def sent_ns(self, stamp_ns: int, arrival_ns: int) -> int:
        """When a picture with the stream's `stamp_ns` was sent: `arrival_ns` or before."""
        apart_ns = arrival_ns - stamp_ns
        offset_ns = self._offset_ns
        if offset_ns is None or apart_ns - offset_ns > _JUMP_NS:  # the stream's time was set back
            self._offset_ns = apart_ns
        else:
            self._offset_ns = min(apart_ns, offset_ns + (arrival_ns - self._last_arrival_ns) // _DRIFT)
        self._last_arrival_ns = arrival_ns
        return stamp_ns + self._offset_ns
