"""Memory of the GPU, memory of the host that the GPU can reach, and both as one where work passes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perception.cuda.driver import Driver
from perception.cuda.resource import Resource
from perception.messages import Image

if TYPE_CHECKING:
    from perception.cuda.stream import Stream


class DeviceMemory(Resource):
    """`nbytes` of the GPU's memory at `pointer`."""

    def __init__(self, driver: Driver, nbytes: int) -> None:
        self._driver = driver
        self._allocation: Any = driver.call(driver.pycuda.mem_alloc, nbytes)
        self.nbytes = nbytes
        self.pointer = int(self._allocation)

    def close(self) -> None:
        """Free it."""
        if self._allocation is not None:
            self._driver.call(self._allocation.free)
            self._allocation = None


class HostMemory(Resource):
    """Pinned memory of the host: `array` (nbytes,) uint8, and if `mapped` the `pointer` that the GPU sees it at."""

    def __init__(self, driver: Driver, nbytes: int, *, mapped: bool) -> None:
        pycuda = driver.pycuda
        flags = pycuda.host_alloc_flags.DEVICEMAP if mapped else 0
        self._driver = driver
        array: Any = driver.call(pycuda.pagelocked_empty, nbytes, np.uint8, "C", flags)
        self.array: Image = array
        self._allocation = array.base
        self.pointer = int(driver.call(self._allocation.get_device_pointer)) if mapped else None

    def close(self) -> None:
        """Free it; nobody may touch the array, or a view of it, any more."""
        if self._allocation is not None:
            del self.array
            self._driver.call(self._allocation.free)
            self._allocation = None


class Exchange(Resource):
    """What host and GPU see in turn: `array` (nbytes,) uint8 on the host, `pointer` on the GPU.

    Between the two lies a copy on the stream, or nothing where they share their memory.
    """

    def __init__(self, host: HostMemory, device: DeviceMemory | None) -> None:
        self._host = host
        self._device = device
        self.array = host.array
        self.pointer = _pointer(host, device)

    def to_device(self, stream: Stream, nbytes: int) -> None:
        """Put the copy of the first `nbytes` to the GPU on the stream."""
        if self._device is not None:
            stream.upload(self.array[:nbytes], self.pointer)

    def to_host(self, stream: Stream) -> None:
        """Put the copy to the host on the stream."""
        if self._device is not None:
            stream.download(self.pointer, self.array)

    def close(self) -> None:
        """Free both sides."""
        if self._device is not None:
            self._device.close()
        del self.array
        self._host.close()


def _pointer(host: HostMemory, device: DeviceMemory | None) -> int:
    pointer = host.pointer if device is None else device.pointer
    if pointer is None:
        raise ValueError("host memory that is not mapped needs memory of the device beside it")
    return pointer
