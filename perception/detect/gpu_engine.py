"""What a detector on the GPU is, whatever runtime is behind it: TensorRT, or ONNX Runtime with its CUDA provider.

An engine is loaded once and shared; each camera has a context of it, on a stream and with tensors of its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.cuda import Gpu, Stream
from perception.detect.model import Model, first_of_batch


class DeviceTensor(NamedTuple):
    """A tensor in device memory: contiguous, and where `pointer` says for as long as its context lives.

    `shape` has the batch axis if the model has one; of a batch the first image is used.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pointer: int

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class EngineContext(Protocol):
    """One camera's inferences, in the order of its stream."""

    input: DeviceTensor
    """The image (1, 3, h, w), float32 or float16: the letterbox kernel writes it."""

    outputs: tuple[DeviceTensor, ...]
    """The raw outputs, float32 (labels of end-to-end models also int32 or int64), in the model's order."""

    def enqueue(self) -> None:
        """Put one inference on the stream: from `input` to `outputs`, without waiting for anything.

        It neither allocates nor synchronises once it has run twice, so that, where the engine is `capturable`, the
        third call can be captured into a CUDA graph.
        """

    def close(self) -> None:
        """Release its memory; the stream must be idle."""


class GpuEngine(Protocol):
    """A detector loaded into a GPU runtime: what the loaders in this folder give."""

    model: Model
    """As on the CPU: whoever makes sense of the outputs looks at those of a black image; see `black_outputs`."""

    notes: tuple[str, ...]
    """What was chosen, a line each, to be shown once."""

    @property
    def capturable(self) -> bool:
        """Whether `EngineContext.enqueue` may be captured into a CUDA graph."""

    def context(self, stream: Stream) -> EngineContext:
        """Create a context whose inferences run on `stream`, in memory of that stream's GPU."""

    def close(self) -> None:
        """Release the engine; its contexts are closed first."""


def black_outputs(gpu: Gpu, engine: GpuEngine) -> dict[str, NDArray[Any]]:
    """The outputs of a black image, see `outputs_of`."""
    return outputs_of(gpu, engine, np.zeros(1, np.float32))


def outputs_of(gpu: Gpu, engine: GpuEngine, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The outputs of one `image`, as large as the engine's input or of one value for all of it.

    By name, without the batch axis, copied to the host; not for the hot path. Of `engine` only `context` is asked for,
    so a loader can call it to fill in `model`.
    """
    with ExitStack() as resources:
        resources.enter_context(gpu.current())
        stream = resources.enter_context(gpu.stream())
        context = engine.context(stream)
        resources.callback(context.close)
        resources.callback(stream.synchronize)  # whatever happens: before its memory is freed
        host = np.ascontiguousarray(np.broadcast_to(image, context.input.shape), context.input.dtype)
        stream.upload(host, context.input.pointer)
        context.enqueue()
        outputs = [_download(stream, tensor) for tensor in context.outputs]
    return dict(zip([tensor.name for tensor in context.outputs], first_of_batch(outputs), strict=True))


def _download(stream: Stream, tensor: DeviceTensor) -> NDArray[Any]:
    host = np.empty(tensor.shape, tensor.dtype)
    stream.download(tensor.pointer, host)
    return host
