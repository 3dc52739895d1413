"""A channel whose inference is a copy: it needs no runtime, and can be captured into a graph like TensorRT's."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.clock import LiveClock
from perception.config import Config
from perception.cuda import Gpu, Stream, Workspace
from perception.cuda.compaction import KernelsByName
from perception.cuda_backend import ChannelParts
from perception.cuda_channel import CudaChannel
from perception.detect.gpu_engine import DeviceTensor
from perception.detect.recognise import Recognised
from perception.detect.stock import StockHead, output_shapes
from perception.faults import Faults
from perception.messages import CLASSES, Camera, Frame, Image, InputSpec, Span, Transform

SPEC: Final = InputSpec(96, 64, "rgb", 1 / 255)
CAMERA: Final = Camera("A", 192, 96, np.eye(3), Transform(np.eye(3), np.zeros(3)))
THRESHOLD: Final = 0.3


def head() -> StockHead:
    return StockHead((SPEC.width, SPEC.height), np.arange(len(CLASSES), dtype=np.int32), THRESHOLD)


def outputs(seed: int = 0) -> list[NDArray[np.float32]]:
    """Noise that a third of the stock head's candidates come out of, many of them overlapping."""
    rng = np.random.default_rng(seed)
    scores, regression = output_shapes((SPEC.width, SPEC.height))
    return [rng.normal(-2, 1, scores).astype(np.float32), rng.normal(0, 1, regression).astype(np.float32)]


class CannedContext:
    """Satisfies `EngineContext`; whatever is in `input`, the outputs are the same."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self._stream = stream
        self._workspace = Workspace(gpu, stream)
        self.input = self._tensor("images", (1, 3, SPEC.height, SPEC.width))
        tables = outputs()
        self.outputs = tuple(
            self._tensor(name, (1, *table.shape)) for name, table in zip(("scores", "regression"), tables, strict=True)
        )
        self._canned = [self._workspace.constant(table) for table in tables]

    def enqueue(self) -> None:
        for source, output in zip(self._canned, self.outputs, strict=True):
            self._stream.copy(source, output.pointer, output.nbytes)

    def close(self) -> None:
        self._workspace.close()

    def _tensor(self, name: str, shape: tuple[int, ...]) -> DeviceTensor:
        dtype = np.dtype(np.float32)
        return DeviceTensor(name, shape, dtype, self._workspace.array(int(np.prod(shape)), dtype))


class CannedChannel:
    """One camera's channel on a GPU, and a look at the tensor that its preprocessing filled."""

    def __init__(self, gpu: Gpu, kernels: KernelsByName, resources: ExitStack, **config: Any) -> None:
        contexts: list[CannedContext] = []

        def context(_: Any, stream: Stream) -> CannedContext:
            contexts.append(CannedContext(gpu, stream))
            return contexts[-1]

        engine: Any = type("Engine", (), {"context": context})()
        device: Any = type("Device", (), {"gpu": gpu, "kernels": kernels})()
        self.faults = Faults()
        parts = ChannelParts(
            Config(**config), device, engine, Recognised(head(), SPEC, ()), "kernel", LiveClock(), self.faults
        )
        self.channel: CudaChannel = parts.channel(CAMERA)
        resources.callback(self.channel.close)
        self._gpu = gpu
        self._context = contexts[0]

    def prepared(self) -> NDArray[np.float32]:
        """The detector's input (3, h, w), once the channel is done."""
        host = np.empty(self._context.input.shape[1:], np.float32)
        with self._gpu.current(), self._gpu.stream() as stream:
            stream.download(self._context.input.pointer, host)
            stream.synchronize()
        return host


def frame(image: Image) -> Frame:
    return Frame(CAMERA.name, image, capture_ns=0, arrival_ns=0, ingest=Span(0, 0))


def noise(shape: tuple[int, ...], seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
