"""Points in a stream's work: whether it got there, and how long it took from one to another."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final

from perception.cuda.driver import Driver
from perception.cuda.resource import Resource

_RECORD_DEFAULT: Final = 0
_RECORD_EXTERNAL: Final = 1  # "create an event record node instead of the default behavior" under capture


class Event(Resource):
    """Recorded by `Stream.record`; `native` is what PyCUDA or cuda-python calls it."""

    native: Any

    @abstractmethod
    def record(self, stream: Any, *, capturing: bool) -> None:
        """Mark the end of what is on PyCUDA's `stream` so far; see `Stream.record`."""

    @abstractmethod
    def done(self) -> bool:
        """Whether the GPU has got there; it never waits."""

    @abstractmethod
    def ms_since(self, start: Event) -> float:
        """Milliseconds from `start`; both are done."""


def make_event(driver: Driver) -> Event:
    """An event of cuda-python, which a graph can record, or of PyCUDA."""
    return PycudaEvent(driver) if driver.bindings is None else BoundEvent(driver)


class PycudaEvent(Event):
    """An event of PyCUDA, which hides its handle: no graph can record it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.native = driver.call(driver.pycuda.Event)

    def record(self, stream: Any, *, capturing: bool) -> None:  # noqa: ARG002
        """Mark the end of what is on the stream so far."""
        self._driver.call(self.native.record, stream)

    def done(self) -> bool:
        """Whether the GPU has got there."""
        return bool(self._driver.call(self.native.query))

    def ms_since(self, start: Event) -> float:
        """Milliseconds from `start`."""
        return float(self._driver.call(self.native.time_since, start.native))

    def close(self) -> None:
        """Drop it: PyCUDA destroys an event with its last reference."""
        self.native = None


class BoundEvent(Event):
    """An event of cuda-python."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.native = driver.bound("cuEventCreate", 0)

    def record(self, stream: Any, *, capturing: bool) -> None:
        """Mark the end of what is on the stream so far; under capture, have the graph do so at every launch."""
        flags = _RECORD_EXTERNAL if capturing else _RECORD_DEFAULT
        self._driver.bound("cuEventRecordWithFlags", self.native, stream.handle, flags)

    def done(self) -> bool:
        """Whether the GPU has got there."""
        return self._driver.ready("cuEventQuery", self.native)

    def ms_since(self, start: Event) -> float:
        """Milliseconds from `start`."""
        return float(self._driver.bound("cuEventElapsedTime", start.native, self.native))

    def close(self) -> None:
        """Destroy it."""
        if self.native is not None:
            self._driver.bound("cuEventDestroy", self.native)
            self.native = None
