"""``cuda.bindings.driver`` over the double: the names that the product uses. Each gives its status first."""

# ruff: noqa: N802 (the names are NVIDIA's)

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from tests.cuda.double import Double, DriverError, Event, Piece

_PRIORITIES = (0, -5)
_EXTERNAL = 1


class Status(IntEnum):
    """Those of ``CUresult`` that the double gives."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_READY = 600


Answer = tuple[Any, ...]
_OK = (Status.CUDA_SUCCESS,)


class _Graph:
    def __init__(self, name: str, pieces: list[Piece]) -> None:
        self.name = name
        self.pieces = pieces


class BindingsDouble:
    """To be passed for the module."""

    CUstreamAttrID = SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PRIORITY="priority")
    CUstreamAttrValue = SimpleNamespace
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")

    def __init__(self, double: Double) -> None:
        self._double = double

    def cuEventCreate(self, flags: int) -> Answer:
        assert flags == 0
        return self._gate("cuEventCreate", lambda: Event(self._double.made("event")))

    def cuEventRecordWithFlags(self, event: Event, stream: int, flags: int) -> Answer:
        capturing = self._double.queues[stream].captured is not None
        if (flags == _EXTERNAL) != capturing:
            self._double.broken.append("recorded as external outside of a capture, or as internal in one")
            return (Status.CUDA_ERROR_INVALID_VALUE,)
        if not capturing:
            return self._gate("cuEventRecord", lambda: self._double.mark(event, stream))[:1]
        # A node of a graph leaves the event as the launch before left it, until it gets there.
        node = Piece("event", lambda: setattr(event, "at_ms", self._double.now_ms))
        return self._gate("cuEventRecord as a node", lambda: self._double.put(stream, *node))[:1]

    def cuEventQuery(self, event: Event) -> Answer:
        status, reached = self._gate("cuEventQuery", lambda: self._double.reached(event), event.name)
        return (status if status or reached else Status.CUDA_ERROR_NOT_READY,)

    def cuEventElapsedTime(self, start: Event, end: Event) -> Answer:
        if start.at_ms is None or end.at_ms is None or end.pending:
            return Status.CUDA_ERROR_INVALID_HANDLE, None
        elapsed_ms = end.at_ms - start.at_ms
        return self._gate("cuEventElapsedTime", lambda: elapsed_ms)

    def cuEventDestroy(self, event: Event) -> Answer:
        self._double.release("cuEventDestroy", event.name)
        return _OK

    def cuStreamBeginCapture(self, stream: int, mode: str) -> Answer:
        assert mode == "thread local"
        queue = self._double.queues[stream]
        if queue.todo:
            self._double.broken.append("captured with work on the stream")
        return self._gate("cuStreamBeginCapture", lambda: setattr(queue, "captured", []))[:1]

    def cuStreamEndCapture(self, stream: int) -> Answer:
        queue = self._double.queues[stream]
        captured, queue.captured = queue.captured or [], None
        return self._gate("cuStreamEndCapture", lambda: _Graph(self._double.made("graph"), captured))

    def cuGraphInstantiate(self, graph: _Graph, flags: int) -> Answer:
        assert flags == 0
        return self._gate("cuGraphInstantiate", lambda: _Graph(self._double.made("executable graph"), graph.pieces))

    def cuGraphLaunch(self, executable: _Graph, stream: int) -> Answer:
        return self._gate("cuGraphLaunch", lambda: self._double.queues[stream].todo.extend(executable.pieces))[:1]

    def cuGraphDestroy(self, graph: _Graph) -> Answer:
        self._double.release("cuGraphDestroy", graph.name)
        return _OK

    def cuGraphExecDestroy(self, executable: _Graph) -> Answer:
        self._double.release("cuGraphExecDestroy", executable.name)
        return _OK

    def cuCtxGetStreamPriorityRange(self) -> Answer:
        return (*_OK, *_PRIORITIES)

    def cuStreamSetAttribute(self, stream: int, attribute: str, value: Any) -> Answer:
        assert attribute == "priority"
        self._double.queues[stream].priority = value.priority
        return _OK

    def cuStreamGetPriority(self, stream: int) -> Answer:
        return *_OK, self._double.queues[stream].priority

    def _gate(self, name: str, do: Any, about: str = "") -> Answer:
        try:
            self._double.record(name, about)
        except DriverError:
            return Status.CUDA_ERROR_INVALID_CONTEXT, None
        return Status.CUDA_SUCCESS, do()
