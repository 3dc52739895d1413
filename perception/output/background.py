"""Recordings that go on all day, on a thread of their own: a disk that is full or slow costs them, not the vehicle."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from perception.errors import OutputError
from perception.messages import Tick
from perception.stages import Recorder
from perception.systemd import Tell

_RETRY_S: Final = 30.0
_CLOSE_S: Final = 1.0
_DEPTH: Final = 10


class Background:
    """Hands ticks to recorders on another thread; a tick that finds `depth` waiting is lost, and counted.

    `make` makes the recorders, and makes them anew `retry_s` after one has failed: they are closed then, and what they
    got is kept. `tell` is given a line when that happens, when they are at work again, and for each that cannot be
    completed at the end.
    """

    def __init__(
        self,
        make: Callable[[], Sequence[Recorder]],
        tell: Tell,
        *,
        retry_s: float = _RETRY_S,
        depth: int = _DEPTH,
    ) -> None:
        self.lost = 0
        self._make = make
        self._tell = tell
        self._retry_s = retry_s
        self._depth = depth
        self._inbox: queue.SimpleQueue[Tick | None] = queue.SimpleQueue()
        self._recorders: Sequence[Recorder] = ()
        self._retry_at_s = 0.0
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def record(self, tick: Tick) -> None:
        """Hand over one tick; returns at once."""
        if self._inbox.qsize() >= self._depth:
            self.lost += 1
        else:
            self._inbox.put(tick)

    def close(self) -> None:
        """Record what waits and complete the files, as far as that takes no longer than a second."""
        self._inbox.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (tick := self._inbox.get()) is not None:
            self._take(tick)
        for error in _close_each(self._recorders):
            self._tell("warning", f"a recording is not complete: {error}")

    def _take(self, tick: Tick) -> None:
        if not self._recorders and time.monotonic() < self._retry_at_s:
            self.lost += 1
            return
        try:
            self._recorders = self._recorders or self._make()
            for recorder in self._recorders:
                recorder.record(tick)
        except (OSError, OutputError) as error:
            self._suspend(error)
            return
        if self._failed:
            self._failed = False
            self._tell("info", "recording again")

    def _suspend(self, error: Exception) -> None:
        recorders, self._recorders = self._recorders, ()
        _close_each(recorders)  # what keeps them from being completed is the same that is told
        self.lost += 1
        self._retry_at_s = time.monotonic() + self._retry_s
        if not self._failed:
            self._failed = True
            self._tell("warning", f"not recording: {error}; tried again every {self._retry_s:g} s")


def _close_each(recorders: Sequence[Recorder]) -> list[Exception]:
    """Close all, whichever cannot be completed; returns why."""
    errors: list[Exception] = []
    for recorder in recorders:
        try:
            recorder.close()
        except (OSError, OutputError) as error:  # noqa: PERF203 (the others are closed all the same)
            errors.append(error)
    return errors
