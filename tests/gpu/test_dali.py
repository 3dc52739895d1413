"""DALI on the GPU against OpenCV on the CPU; `tests/preprocess` has the same pipeline on DALI's CPU device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from perception.cuda import Gpu, Stream
from perception.messages import EncodedImage, Frame, Image, InputSpec, Span
from perception.preprocess.dali import DaliGpuPreprocessor, Source
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.preprocess.test_opencv import IMAGENET, YOLOV8, YOLOX, smooth_image

pytestmark = pytest.mark.gpu
pytest.importorskip(
    "nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda130", exc_type=ImportError
)

WIDTH, HEIGHT = 640, 384
SPECS = pytest.mark.parametrize("spec", [YOLOX, YOLOV8, IMAGENET], ids=["yolox", "yolov8", "imagenet"])


class Target(NamedTuple):
    """Where it writes: a tensor on a stream."""

    gpu: Gpu
    stream: Stream
    resources: ExitStack

    def letterbox(self, frames: list[Frame], spec: InputSpec, source: Source, dtype: Any) -> list[NDArray[Any]]:
        """The detector's input (3, h, w) of each, one after the other on the same stream, in `dtype`."""
        shape = 3, spec.height, spec.width
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.resources.enter_context(self.gpu.memory(nbytes))
        preprocess = DaliGpuPreprocessor(
            (WIDTH, HEIGHT),
            spec,
            gpu=self.gpu.ordinal,
            stream=self.stream.handle,
            target=memory.pointer,
            dtype=np.dtype(dtype),
            source=source,
        )
        self.resources.callback(preprocess.close)
        self.resources.callback(self.stream.synchronize)
        prepared = [np.empty(shape, dtype) for _ in frames]
        for frame, out in zip(frames, prepared, strict=True):
            preprocess.stage(frame)
            preprocess.enqueue()
            self.stream.download(memory.pointer, out)
            self.stream.synchronize()
        return prepared


@pytest.fixture
def target(real_gpu: Gpu) -> Iterator[Target]:
    with real_gpu.current(), real_gpu.stream() as stream, ExitStack() as resources:
        yield Target(real_gpu, stream, resources)


def frame(image: Image, encoded: bytes | None = None) -> Frame:
    given = None if encoded is None else EncodedImage("jpeg", encoded)
    return Frame("A", image, capture_ns=0, arrival_ns=0, ingest=Span(0, 0), encoded=given)


def by_opencv(image: Image, spec: InputSpec) -> NDArray[np.float32]:
    out = np.empty((3, spec.height, spec.width), np.float32)
    OpenCvPreprocessor((WIDTH, HEIGHT), spec)(image, out)
    return out


def grey_levels(difference: Any, spec: InputSpec) -> Any:
    return np.abs(difference) / (spec.scale / np.array(spec.std)[:, None, None])


@SPECS
def test_it_is_the_letterbox_of_the_cpu_to_one_grey_level(target: Target, spec: InputSpec) -> None:
    images = [smooth_image(WIDTH, HEIGHT, seed=seed) for seed in range(3)]

    prepared = target.letterbox([frame(image) for image in images], spec, "pixels", np.float32)

    for image, got in zip(images, prepared, strict=True):
        assert grey_levels(got - by_opencv(image, spec), spec).max() <= 1 + 1e-3


def test_half_precision_is_the_same_rounded(target: Target) -> None:
    image = smooth_image(WIDTH, HEIGHT)

    (half,) = target.letterbox([frame(image)], IMAGENET, "pixels", np.float16)
    (full,) = target.letterbox([frame(image)], IMAGENET, "pixels", np.float32)

    np.testing.assert_allclose(half.astype(np.float32), full, rtol=1e-3, atol=1e-3)


@SPECS
def test_jpegs_are_decoded_on_the_gpu(target: Target, spec: InputSpec) -> None:
    image = smooth_image(WIDTH, HEIGHT)
    data = cv2.imencode(".jpg", image)[1]

    (got,) = target.letterbox([frame(image, data.tobytes())], spec, "encoded", np.float32)

    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    apart = grey_levels(got - by_opencv(decoded, spec), spec)
    assert apart.mean() < 1  # its inverse transform is another one than libjpeg-turbo's
    assert apart.max() < 6
