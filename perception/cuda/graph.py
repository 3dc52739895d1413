"""CUDA graphs: what a stream was given to do, captured once and then launched as one.

See "CUDA Graphs" in NVIDIA's CUDA C++ Programming Guide. PyCUDA has none of this: all of it is cuda-python's.
"""

from __future__ import annotations

from typing import Any

from perception.cuda.driver import Driver
from perception.cuda.resource import Resource


class Graph(Resource):
    """An executable graph, to be launched on the stream that it was captured from."""

    def __init__(self, driver: Driver, executable: Any, stream_handle: int) -> None:
        self._driver = driver
        self._executable: Any = executable
        self._stream_handle = stream_handle

    def launch(self) -> None:
        """Put all of it on the stream; one launch is done before the next."""
        self._driver.bound("cuGraphLaunch", self._executable, self._stream_handle)

    def close(self) -> None:
        """Destroy it; the stream is idle."""
        if self._executable is not None:
            self._driver.bound("cuGraphExecDestroy", self._executable)
            self._executable = None


def begin_capture(driver: Driver, stream_handle: int) -> None:
    """Have the stream take down what it is given, instead of doing it; what other threads do is theirs."""
    mode = driver.bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # type: ignore[union-attr]
    driver.bound("cuStreamBeginCapture", stream_handle, mode)


def end_capture(driver: Driver, stream_handle: int) -> Graph:
    """Make what was taken down executable."""
    graph = driver.bound("cuStreamEndCapture", stream_handle)
    try:
        executable = driver.bound("cuGraphInstantiate", graph, 0)
    finally:
        driver.bound("cuGraphDestroy", graph)
    return Graph(driver, executable, stream_handle)


def abandon_capture(driver: Driver, stream_handle: int) -> None:
    """End a capture in which something failed: the stream is of use again, and the failure the caller's to raise."""
    status, graph = driver.bindings.cuStreamEndCapture(stream_handle)  # type: ignore[union-attr]
    if status == 0:
        driver.bound("cuGraphDestroy", graph)
