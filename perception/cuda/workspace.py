"""What one camera's work needs of the GPU's memory, allocated once and freed together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.cuda.gpu import Gpu
from perception.cuda.resource import Resource
from perception.cuda.stream import Stream


class Workspace(Resource):
    """Arrays in the GPU's memory, by address, for the work of one stream."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self._gpu = gpu
        self._stream = stream
        self._resources = ExitStack()

    def array(self, count: int, dtype: Any) -> int:
        """The address of `count` of a type, with what was in the memory before."""
        nbytes = max(count * np.dtype(dtype).itemsize, 1)
        return self._resources.enter_context(self._gpu.memory(nbytes)).pointer

    def constant(self, values: NDArray[Any]) -> int:
        """The address of a copy of an array; it waits for the stream, so not for the hot path."""
        pointer = self.array(values.size, values.dtype)
        self._stream.upload(np.ascontiguousarray(values), pointer)
        self._stream.synchronize()
        return pointer

    def close(self) -> None:
        """Free all of it, the last first."""
        self._resources.close()
