"""The kernels on a GPU, behind the same call as on the CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.cuda import Gpu, Stream
from perception.cuda.compaction import KernelsByName
from tests.kernels.grid import Dim, check_guards


class GpuGrid:
    """Launches kernels on `stream`, with copies of the arrays that it is given; what are buffers come back."""

    def __init__(self, gpu: Gpu, stream: Stream, kernels: KernelsByName) -> None:
        self._gpu = gpu
        self._stream = stream
        self._kernels = kernels

    def launch(self, name: str, grid: Dim, block: Dim, *args: Any) -> None:
        """Run a kernel to its end; see `CpuGrid.launch`."""
        with self._gpu.current(), ExitStack() as resources:
            copies = _Copies(self._gpu, self._stream, resources)
            values = [copies.value(arg) for arg in args]
            resources.callback(self._stream.synchronize)  # before the memory is freed
            self._kernels[name].prepare(grid, block, *values).enqueue(self._stream)
            copies.back()
        for arg in args:
            check_guards(arg)


class _Copies:
    """The memory behind arrays, once each on the GPU: of a buffer with its guards."""

    def __init__(self, gpu: Gpu, stream: Stream, resources: ExitStack) -> None:
        self._gpu = gpu
        self._stream = stream
        self._resources = resources
        self._made: dict[int, tuple[NDArray[Any], int]] = {}

    def value(self, arg: Any) -> Any:
        """What the kernel is launched with."""
        if isinstance(arg, np.void):
            return arg.tobytes()
        if not isinstance(arg, np.ndarray):
            return arg
        whole = _memory(arg)
        start = whole.ctypes.data
        if start not in self._made:
            assert whole.flags.c_contiguous
            pointer = self._resources.enter_context(self._gpu.memory(max(whole.nbytes, 1))).pointer
            if whole.nbytes:
                self._stream.upload(whole, pointer)
            self._made[start] = whole, pointer
        return self._made[start][1] + arg.ctypes.data - start

    def back(self) -> None:
        """Copy the buffers to the host; those that others gave are what they were."""
        for whole, pointer in self._made.values():
            if whole.flags.writeable and whole.nbytes:
                self._stream.download(pointer, whole)


def _memory(array: NDArray[Any]) -> NDArray[Any]:
    memory: NDArray[Any] | None = getattr(array, "memory", None)
    return array if memory is None else memory
