"""A GPU by its primary context, which TensorRT, DALI and ONNX Runtime work in too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perception.cuda.driver import Driver, load_driver
from perception.cuda.event import Event, make_event
from perception.cuda.memory import DeviceMemory, Exchange, HostMemory
from perception.cuda.module import Module
from perception.cuda.resource import Resource
from perception.cuda.stream import Stream


class Gpu(Resource):
    """Makes all resources; whoever makes or uses one does so under `current`.

    `zero_copy` says that host and GPU share their memory: then `exchange` maps it instead of copying. Raises
    `BackendError` and `GpuError` where there is no such GPU.
    """

    def __init__(self, ordinal: int = 0, driver: Driver | None = None) -> None:
        self.driver = driver or load_driver()
        call, pycuda = self.driver.call, self.driver.pycuda
        call(pycuda.init)
        device = call(pycuda.Device, ordinal)
        self.ordinal = ordinal
        self.name: str = call(device.name)
        self.compute_capability: tuple[int, int] = call(device.compute_capability)
        self.zero_copy = self._has(device, "INTEGRATED") and self._has(device, "CAN_MAP_HOST_MEMORY")
        self._context: Any = call(device.retain_primary_context)

    @property
    def architecture(self) -> str:
        """What kernels are compiled for, such as ``sm_87``."""
        return "sm_{}{}".format(*self.compute_capability)

    @property
    def has_graphs(self) -> bool:
        """Whether work can be captured into graphs: with cuda-python."""
        return self.driver.bindings is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about it."""
        memory = (
            "memory shared with the host: frames and results are mapped, not copied"
            if self.zero_copy
            else "memory of its own: frames and results are copied through pinned memory"
        )
        return f"{self.name} ({self.architecture})", memory

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread, for as long as this lasts; it nests.

        Never for longer than a piece of work: PyCUDA aborts the process when a thread ends with a context left on it.
        """
        self.driver.call(self._context.push)
        try:
            yield
        finally:
            self.driver.call(self.driver.pycuda.Context.pop)

    def stream(self, priority: int | None = None) -> Stream:
        """Create a stream; the lower its `priority`, the sooner its work is taken. Priorities need cuda-python."""
        return Stream(self.driver, priority)

    def event(self) -> Event:
        """Create an event, that times what a stream does."""
        return make_event(self.driver)

    def memory(self, nbytes: int) -> DeviceMemory:
        """Allocate memory of the GPU, with what was in it before."""
        return DeviceMemory(self.driver, nbytes)

    def host_memory(self, nbytes: int) -> HostMemory:
        """Allocate pinned memory of the host, mapped where the GPU shares it."""
        return HostMemory(self.driver, nbytes, mapped=self.zero_copy)

    def exchange(self, nbytes: int) -> Exchange:
        """Allocate memory that host and GPU see in turn."""
        host = self.host_memory(nbytes)
        return Exchange(host, None if self.zero_copy else self.memory(nbytes))

    def module(self, cubin: bytes) -> Module:
        """Load compiled kernels."""
        return Module(self.driver, cubin)

    def free_bytes(self) -> int:
        """How much of the GPU's memory nobody has."""
        free, _ = self.driver.call(self.driver.pycuda.mem_get_info)
        return int(free)

    def close(self) -> None:
        """Let go of the primary context, from whatever thread; all that was made here is closed before."""
        if self._context is not None:
            # PyCUDA releases a context from the thread that retained it, or where it is current.
            self.driver.call(self._context.push)
            self.driver.call(self._context.detach)
            self._context = None

    def _has(self, device: Any, attribute: str) -> bool:
        code = getattr(self.driver.pycuda.device_attribute, attribute)
        return bool(self.driver.call(device.get_attribute, code))
