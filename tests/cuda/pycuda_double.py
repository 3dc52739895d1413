"""``pycuda.driver`` over the double: the names that the product uses, with PyCUDA's ways of releasing things."""

from __future__ import annotations

import struct
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cuda.double import Call, Double, DriverError, Event, Queue

_DEVICEMAP = 2
_NON_BLOCKING = 1


class PycudaDouble:
    """To be passed for the module."""

    Error = DriverError
    device_attribute = SimpleNamespace(INTEGRATED="integrated", CAN_MAP_HOST_MEMORY="can map host memory")
    host_alloc_flags = SimpleNamespace(DEVICEMAP=_DEVICEMAP)

    def __init__(self, double: Double) -> None:
        self._double = double
        self.Context = _Context

    def init(self) -> None:
        """``cuInit``."""

    def Device(self, ordinal: int) -> _Device:  # noqa: N802
        assert ordinal == 0
        return _Device(self._double)

    def Stream(self, flags: int) -> _Stream:  # noqa: N802
        assert flags == _NON_BLOCKING
        return _Stream(self._double)

    def Event(self) -> _Event:  # noqa: N802
        self._double.record("cuEventCreate")
        return _Event(self._double)

    def mem_alloc(self, nbytes: int) -> _Memory:
        self._double.record("cuMemAlloc", str(nbytes))
        return _Memory(self._double, nbytes)

    def mem_get_info(self) -> tuple[int, int]:
        return 1 << 30, 1 << 31

    def pagelocked_empty(self, nbytes: int, dtype: Any, order: str, flags: int) -> NDArray[np.uint8]:
        assert (dtype, order) == (np.uint8, "C")
        self._double.record("cuMemHostAlloc", str(nbytes))
        return np.asarray(_HostMemory(self._double, nbytes, mapped=flags == _DEVICEMAP))

    def memcpy_htod_async(self, pointer: int, host: NDArray[Any], stream: _Stream) -> None:
        double, source = self._double, _bytes(host)
        double.record("cuMemcpyHtoDAsync", str(host.nbytes))
        before = source.copy() if double.queues[stream.handle].captured is None else None

        def copy() -> None:
            if before is not None and not np.array_equal(source, before):
                double.broken.append("host memory was written before its copy to the GPU was done")
            double.at(pointer, host.nbytes)[:] = source

        double.put(stream.handle, "to the GPU", copy)

    def memcpy_dtoh_async(self, host: NDArray[Any], pointer: int, stream: _Stream) -> None:
        double, target = self._double, _bytes(host)
        double.record("cuMemcpyDtoHAsync", str(host.nbytes))

        def copy() -> None:
            target[:] = double.at(pointer, host.nbytes)

        double.put(stream.handle, "to the host", copy)

    def memcpy_dtod_async(self, target: int, source: int, nbytes: int, stream: _Stream) -> None:
        double = self._double
        double.record("cuMemcpyDtoDAsync", str(nbytes))

        def copy() -> None:
            double.at(target, nbytes)[:] = double.at(source, nbytes)

        double.put(stream.handle, "within the GPU", copy)

    def module_from_buffer(self, cubin: bytes) -> _Module:
        self._double.record("cuModuleLoadDataEx", str(len(cubin)))
        return _Module(self._double)


def _bytes(host: NDArray[Any]) -> NDArray[np.uint8]:
    assert host.flags.c_contiguous
    return host.reshape(-1).view(np.uint8)


class _Device:
    def __init__(self, double: Double) -> None:
        self._double = double

    def name(self) -> str:
        return "a double"

    def compute_capability(self) -> tuple[int, int]:
        return 8, 7

    def get_attribute(self, attribute: str) -> int:
        assert attribute in {"integrated", "can map host memory"}
        return int(self._double.integrated)

    def retain_primary_context(self) -> _Context:
        self._double.calls.append(Call("cuDevicePrimaryCtxRetain", "", threading.get_ident()))
        return _Context(self._double)


class _Context:
    """PyCUDA keeps a stack of contexts per thread, and `pop` is static: so here too."""

    double: Double

    def __init__(self, double: Double) -> None:
        type(self).double = double
        self._name = double.made("context")

    def push(self) -> None:
        self.double.contexts.setdefault(threading.get_ident(), []).append(self)
        self.double.record("cuCtxPushCurrent")

    @classmethod
    def pop(cls) -> None:
        cls.double.record("cuCtxPopCurrent")
        cls.double.contexts[threading.get_ident()].pop()

    def detach(self) -> None:
        self.double.release("cuDevicePrimaryCtxRelease", self._name)
        self.double.contexts[threading.get_ident()].clear()


class _Stream:
    """Destroyed with its last reference, as all that follows but memory."""

    def __init__(self, double: Double) -> None:
        double.record("cuStreamCreate")
        self._double = double
        self._name = double.made("stream")
        self.handle = 0x1000 + len(double.queues)
        double.queues[self.handle] = Queue()

    def synchronize(self) -> None:
        self._double.record("cuStreamSynchronize", self._name)
        self._double.advance(self.handle)

    def __del__(self) -> None:
        if self._double.queues[self.handle].todo:
            self._double.broken.append(f"{self._name} was destroyed with work on it")
        self._double.release("cuStreamDestroy", self._name)


class _Event(Event):
    def __init__(self, double: Double) -> None:
        super().__init__(double.made("event"))
        self._double = double

    def record(self, stream: _Stream) -> None:
        self._double.record("cuEventRecord", self.name)
        if self._double.queues[stream.handle].captured is not None:
            self._double.broken.append("an event of PyCUDA was captured: nobody can ask for it")
        self._double.mark(self, stream.handle)

    def query(self) -> bool:
        self._double.record("cuEventQuery", self.name)
        return self._double.reached(self)

    def time_since(self, start: _Event) -> float:
        self._double.record("cuEventElapsedTime", self.name)
        assert not self.pending, "an event that is not done"
        assert self.at_ms is not None
        assert start.at_ms is not None
        return self.at_ms - start.at_ms

    def __del__(self) -> None:
        self._double.release("cuEventDestroy", self.name)


class _Memory:
    def __init__(self, double: Double, nbytes: int) -> None:
        self._double = double
        self._name = double.made("memory")
        self._pointer = double.allocate(nbytes)

    def __int__(self) -> int:
        return self._pointer

    def free(self) -> None:
        self._double.record("cuMemFree", self._name)
        self._double.release("freed", self._name)
        self._double.free(self._pointer)


class _HostMemory:
    """The `base` of a page-locked array."""

    def __init__(self, double: Double, nbytes: int, *, mapped: bool) -> None:
        self._double = double
        self._mapped = mapped
        self._name = double.made("host memory")
        self._pointer = double.allocate(nbytes)
        self.__array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (self._pointer, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        self._double.record("cuMemHostGetDevicePointer", self._name)
        assert self._mapped
        return self._pointer

    def free(self) -> None:
        self._double.record("cuMemFreeHost", self._name)
        self._double.release("freed", self._name)
        self._double.free(self._pointer)


class _Module:
    def __init__(self, double: Double) -> None:
        self._double = double
        self._name = double.made("module")

    def get_function(self, name: str) -> _Function:
        self._double.record("cuModuleGetFunction", name)
        return _Function(self._double, self, name)

    def __del__(self) -> None:
        self._double.release("cuModuleUnload", self._name)


class _Function:
    """Keeps its module loaded, as PyCUDA's do."""

    def __init__(self, double: Double, module: _Module, name: str) -> None:
        self._double = double
        self._module = module
        self._name = name
        self._format = ""

    def prepare(self, arg_format: str) -> None:
        self._format = arg_format

    def prepared_async_call(self, grid: Any, block: Any, stream: _Stream, *args: Any) -> None:
        double = self._double
        double.record("cuLaunchKernel", self._name)
        assert isinstance(block, tuple), "PyCUDA would take it for the stream"
        struct.pack(self._format, *args)
        values = [np.void(arg) if isinstance(arg, bytes) else arg for arg in args]

        def run() -> None:
            if double.grid is not None:
                double.grid.launch(self._name, grid, block, *values)

        double.put(stream.handle, self._name, run)
