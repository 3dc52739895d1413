"""A queue of work for the GPU: what is put on it runs in order, while the host goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from perception.cuda.driver import Driver
from perception.cuda.event import Event
from perception.cuda.graph import Graph, abandon_capture, begin_capture, end_capture
from perception.cuda.nvidia import bindings_for, present_gpu
from perception.cuda.resource import Resource
from perception.errors import BackendError

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING: never waits for the default stream, as the runtimes' own do not


class Stream(Resource):
    """A stream of PyCUDA; `handle` is its CUstream as an integer, for TensorRT, DALI and ONNX Runtime."""

    def __init__(self, driver: Driver, priority: int | None) -> None:
        self.driver = driver
        self._stream: Any = driver.call(driver.pycuda.Stream, _NON_BLOCKING)
        self._capturing = False
        if priority is not None:
            try:
                _set_priority(driver, self.handle, priority)
            except BaseException:
                self.close()
                raise

    @property
    def handle(self) -> int:
        """Its CUstream."""
        return int(self._stream.handle)

    def upload(self, host: NDArray[Any], pointer: int) -> None:
        """Put a copy of a contiguous array to device memory on the stream: asynchronous from pinned memory only."""
        self.driver.call(self.driver.pycuda.memcpy_htod_async, pointer, host, self._stream)

    def download(self, pointer: int, host: NDArray[Any]) -> None:
        """Put a copy of device memory to a contiguous array on the stream: asynchronous to pinned memory only."""
        self.driver.call(self.driver.pycuda.memcpy_dtoh_async, host, pointer, self._stream)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Put a copy within the GPU's memory on the stream."""
        self.driver.call(self.driver.pycuda.memcpy_dtod_async, target, source, nbytes, self._stream)

    def launch(self, function: Any, grid: Sequence[int], block: Sequence[int], args: Sequence[Any]) -> None:
        """Put a prepared kernel on the stream; see `Launch`."""
        self.driver.call(function.prepared_async_call, grid, block, self._stream, *args)

    def record(self, event: Event) -> None:
        """Mark where the stream's work stands; while capturing, each launch of the graph marks it anew."""
        event.record(self._stream, capturing=self._capturing)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Turn what `work` puts on the stream into a graph instead of running it; needs cuda-python."""
        begin_capture(self.driver, self.handle)
        self._capturing = True
        try:
            work()
        except BaseException:
            self._capturing = False
            abandon_capture(self.driver, self.handle)
            raise
        self._capturing = False
        return end_capture(self.driver, self.handle)

    def synchronize(self) -> None:
        """Wait until all that is on the stream is done: at start-up and shut-down, never in a tick."""
        self.driver.call(self._stream.synchronize)

    def close(self) -> None:
        """Drop it: PyCUDA destroys a stream with its last reference; work still on it is finished first."""
        self._stream = None


def _set_priority(driver: Driver, handle: int, priority: int) -> None:
    """Set the priority of a stream that PyCUDA made without one, and see whether it took."""
    if driver.bindings is None:
        needed = bindings_for(present_gpu())
        raise BackendError(f"stream priorities need cuda-python: pip install {needed}, or remove gpu.priorities")
    least, greatest = driver.bound("cuCtxGetStreamPriorityRange")
    if not greatest <= priority <= least:
        raise BackendError(f"gpu.priorities: {priority}; this GPU knows {greatest} (soonest) to {least}")
    value = driver.bindings.CUstreamAttrValue()
    value.priority = priority
    driver.bound("cuStreamSetAttribute", handle, driver.bindings.CUstreamAttrID.CU_LAUNCH_ATTRIBUTE_PRIORITY, value)
    taken = driver.bound("cuStreamGetPriority", handle)
    if taken != priority:
        raise BackendError(f"gpu.priorities: asked the GPU for {priority}, got {taken}; remove gpu.priorities")
