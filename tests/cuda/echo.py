"""A detector whose only object says, by its score, how bright the image was: so nobody can mix up frames unseen."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.cuda import Stream, Workspace
from perception.cuda.gpu import Gpu
from perception.detect.gpu_engine import DeviceTensor
from perception.detect.stock import StockHead, output_shapes
from perception.messages import CLASSES, Camera, Frame, Image, InputSpec, Span, Transform
from tests.cuda.double import Double

SPEC: Final = InputSpec(48, 32, "bgr", 1.0)
CAMERA: Final = Camera("A", 96, 64, np.eye(3), Transform(np.eye(3), np.zeros(3)))


class EchoContext:
    """Tensors like those of the stock detector; an inference is a piece of work on the double's stream."""

    def __init__(self, double: Double, gpu: Gpu, stream: Stream) -> None:
        self._double = double
        self._stream = stream
        self._workspace = Workspace(gpu, stream)
        self.input = self._tensor("images", (1, 3, SPEC.height, SPEC.width))
        scores, regression = output_shapes((SPEC.width, SPEC.height))
        self.outputs = self._tensor("scores", (1, *scores)), self._tensor("regression", (1, *regression))

    def enqueue(self) -> None:
        self._double.record("infer")
        self._double.put(self._stream.handle, "infer", self._infer)

    def close(self) -> None:
        self._workspace.close()

    def _infer(self) -> None:
        scores, regression = (self._array(output) for output in self.outputs)
        scores[:], regression[:] = -9, 0
        scores[0, 2, 3, 0] = logit(float(self._array(self.input).mean()))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> DeviceTensor:
        dtype = np.dtype(np.float32)
        return DeviceTensor(name, shape, dtype, self._workspace.array(int(np.prod(shape)), dtype))

    def _array(self, tensor: DeviceTensor) -> NDArray[Any]:
        return self._double.at(tensor.pointer, tensor.nbytes).view(tensor.dtype).reshape(tensor.shape)


def head() -> StockHead:
    return StockHead((SPEC.width, SPEC.height), np.arange(len(CLASSES), dtype=np.int32), 0.3)


def logit(grey: float) -> float:
    return grey / 100


def score(grey: float) -> float:
    return 1 / (1 + float(np.exp(-logit(grey))))


def frame(grey: int, image: Image | None = None) -> Frame:
    pixels = np.full((CAMERA.height, CAMERA.width, 3), grey, np.uint8) if image is None else image
    return Frame(CAMERA.name, pixels, capture_ns=grey, arrival_ns=0, ingest=Span(0, 0))
