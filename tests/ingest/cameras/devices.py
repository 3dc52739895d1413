"""Cameras of which a test decides what they do, for what no real one does on command."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from perception.ingest.cameras.camera import CameraError, RawPicture, Shot
from perception.ingest.decode import UndecodableError

MS = 1_000_000

Event = Shot | CameraError | UndecodableError | Exception


@dataclass
class ScriptedDevice:
    """Gives what is put into `events`, in that order; while `gone` is set, it cannot be opened."""

    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    gone: str = ""
    opened: int = 0
    tried: int = 0
    closed: int = 0

    def open(self) -> ScriptedDevice:
        self.tried += 1
        if self.gone:
            raise CameraError(self.gone)
        self.opened += 1
        return self

    def read(self) -> Shot | None:
        try:
            event = self.events.get(timeout=0.02)
        except queue.Empty:
            return None
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.closed += 1

    def shoot(self, picture: bytes | RawPicture, stamp_ns: int | None = None) -> Shot:
        """A picture captured at `stamp_ns`, or just now, that arrives now."""
        now_ns = time.monotonic_ns()
        shot = Shot(picture, now_ns if stamp_ns is None else stamp_ns, now_ns)
        self.events.put(shot)
        return shot


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
