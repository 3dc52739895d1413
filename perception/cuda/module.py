"""Compiled kernels, and their launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from perception.cuda.driver import Driver
from perception.cuda.resource import Resource
from perception.cuda.stream import Stream

Dim = tuple[int, int, int]


def blocks(count: int, threads: int) -> int:
    """How many blocks of so many threads it takes."""
    return -(-count // threads)


class Kernel:
    """A kernel by its `name`; of use until its module is closed."""

    def __init__(self, name: str, function: Any) -> None:
        self.name = name
        self.function: Any = function

    def prepare(self, grid: Dim, block: Dim, *args: Any) -> Launch:
        """Settle what it is launched with.

        `args` are device addresses as int, NumPy scalars, and structures as bytes: of the types of the kernel's own.
        """
        self.function.prepare("".join(map(_format, args)))
        return Launch(self, grid, block, args)


class Launch(NamedTuple):
    """A kernel with all that it is launched with."""

    kernel: Kernel
    grid: Dim
    block: Dim
    args: Sequence[Any]

    def enqueue(self, stream: Stream) -> None:
        """Put it on a stream."""
        stream.launch(self.kernel.function, self.grid, self.block, self.args)


class Module(Resource):
    """The kernels of one source, compiled for this GPU."""

    def __init__(self, driver: Driver, cubin: bytes) -> None:
        self._driver = driver
        self._module: Any = driver.call(driver.pycuda.module_from_buffer, cubin)
        self._kernels: list[Kernel] = []

    def kernel(self, name: str) -> Kernel:
        """One of them; raises `GpuError` where there is none of that name."""
        kernel = Kernel(name, self._driver.call(self._module.get_function, name))
        self._kernels.append(kernel)
        return kernel

    def close(self) -> None:
        """Unload it: PyCUDA does so with the last reference to it, which each of its functions is too."""
        for kernel in self._kernels:
            kernel.function = None
        self._kernels.clear()
        self._module = None


def _format(arg: Any) -> str:
    """How `struct` calls it; PyCUDA lays it out with the alignment of C."""
    if isinstance(arg, int):
        return "P"
    if isinstance(arg, bytes):
        return f"{len(arg)}s"
    return np.dtype(type(arg)).char
