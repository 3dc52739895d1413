"""DALI's preprocessing for the GPU against OpenCV on the CPU; where there is no GPU, its pipelines run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from perception.cuda import Gpu, Stream
from perception.messages import Frame, Image, InputSpec, Needed, Span
from perception.pixels import decode
from perception.preprocess import dali
from perception.preprocess.dali import DaliGpuPreprocessor
from perception.preprocess.letterbox import Letterbox
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.cuda.dali_double import DaliDouble
from tests.gpu.conftest import Device
from tests.preprocess.test_opencv import IMAGENET, YOLOV8, YOLOX, smooth_image

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

    def letterbox(self, frames: list[Frame], spec: InputSpec, dtype: Any) -> list[NDArray[Any]]:
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
def target(device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    if device.played:
        monkeypatch.setattr(dali, "letterbox_pipeline", DaliDouble(device.played).define)
    with device.gpu.current(), device.gpu.stream() as stream, ExitStack() as resources:
        yield Target(device.gpu, stream, resources)


def frame(image: Image) -> Frame:
    return Frame("A", image, capture_ns=0, arrival_ns=0, ingest=Span(0, 0))


def by_opencv(image: Image, spec: InputSpec) -> NDArray[np.float32]:
    out = np.empty((3, spec.height, spec.width), np.float32)
    OpenCvPreprocessor((WIDTH, HEIGHT), spec)(image, out)
    return out


def grey_levels(difference: Any, spec: InputSpec) -> Any:
    return np.abs(difference) / (spec.scale / np.array(spec.std)[:, None, None])


@SPECS
def test_it_is_the_letterbox_of_the_cpu_to_one_grey_level(target: Target, spec: InputSpec) -> None:
    images = [smooth_image(WIDTH, HEIGHT, seed=seed) for seed in range(3)]

    prepared = target.letterbox([frame(image) for image in images], spec, np.float32)

    for image, got in zip(images, prepared, strict=True):
        assert grey_levels(got - by_opencv(image, spec), spec).max() <= 1 + 1e-3


def test_half_precision_is_the_same_rounded(target: Target) -> None:
    image = smooth_image(WIDTH, HEIGHT)

    (half,) = target.letterbox([frame(image)], IMAGENET, np.float16)
    (full,) = target.letterbox([frame(image)], IMAGENET, np.float32)

    np.testing.assert_allclose(half.astype(np.float32), full, rtol=1e-3, atol=1e-3)


def assert_decoded(got: NDArray[Any], data: Image, spec: InputSpec) -> None:
    fit = Letterbox.fit((WIDTH, HEIGHT), (spec.width, spec.height), spec.pad_position)
    reduction = Needed(fit.resized_size).reduction((WIDTH, HEIGHT))
    apart = grey_levels(got - by_opencv(decode(data, reduction), spec), spec)
    assert apart.mean() < 1  # its inverse transform is another one than libjpeg-turbo's
    assert apart.max() < 6


@SPECS
def test_jpegs_are_decoded_on_the_gpu(target: Target, spec: InputSpec) -> None:
    data = jpeg(smooth_image(WIDTH, HEIGHT))

    (got,) = target.letterbox([frame(data)], spec, np.float32)

    assert_decoded(got, data, spec)


def test_images_and_jpegs_may_take_turns_and_a_broken_one_costs_itself_only(target: Target) -> None:
    image = smooth_image(WIDTH, HEIGHT)
    data = jpeg(image)
    broken = np.frombuffer(data.tobytes().replace(b"\xff\xda", b"\xff\xd9"), np.uint8)

    with pytest.raises(ValueError, match="does not decode"):
        target.letterbox([frame(data), frame(broken)], YOLOX, np.float32)
    pixels, encoded = target.letterbox([frame(image), frame(data)], YOLOX, np.float32)

    assert grey_levels(pixels - by_opencv(image, YOLOX), YOLOX).max() <= 1 + 1e-3
    assert_decoded(encoded, data, YOLOX)


def test_after_a_broken_jpeg_the_same_pipeline_goes_on(target: Target) -> None:
    data = jpeg(smooth_image(WIDTH, HEIGHT))
    cut = np.concatenate([data[: len(data) // 2], data[-2:]])

    *_, last = target.letterbox([frame(data), frame(cut), frame(data)], YOLOX, np.float32)

    assert_decoded(last, data, YOLOX)


def jpeg(image: Image) -> Image:
    """With full chroma: decoders differ in how they smooth any other."""
    given = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return np.asarray(cv2.imencode(".jpg", image, given)[1], np.uint8).ravel()
