"""SIGINT and SIGTERM to a command: one line and an exit code, no traceback, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

EXIT_INTERRUPTED: Final = 1
_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
_STDERR: Final = 2
_BURST_S: Final = 1.0
_SHOW_CURSOR: Final = "\x1b[?25h"


def end_at_once(exit_code: int = EXIT_INTERRUPTED) -> None:
    """From now on they end the process on the spot: for as long as there is nothing to be kept."""
    for number in _NUMBERS:
        signal.signal(number, _EndAtOnce("interrupted: nothing was written", exit_code))


@contextmanager
def asking(stop: threading.Event) -> Iterator[None]:
    """Meanwhile they set `stop`, for whoever writes to come to an end in order; afterwards all is kept.

    What comes within a second counts as one. Who asks again after that does not want to wait: the process ends on the
    spot, and what it was writing stays partial.
    """
    end = _EndAtOnce("interrupted again: what was being written stays as *.partial", EXIT_INTERRUPTED)
    first_s = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if not stop.is_set():
            first_s = time.monotonic()
            stop.set()
        elif time.monotonic() - first_s > _BURST_S:
            end(number, frame)

    previous: dict[int, Any] = {number: signal.signal(number, on_signal) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # A command has nothing left to do but to exit.
            signal.signal(number, signal.SIG_IGN if isinstance(handler, _EndAtOnce) else handler)


@dataclass(frozen=True, slots=True)
class _EndAtOnce:
    """Raises nothing: an exception would be lost in a callback, or wait for what hangs."""

    line: str
    exit_code: int

    def __call__(self, _: int, __: FrameType | None) -> None:
        shown = _SHOW_CURSOR if os.isatty(_STDERR) else ""  # a progress bar may have hidden it
        os.write(_STDERR, f"{shown}{self.line}\n".encode())
        os._exit(self.exit_code)
