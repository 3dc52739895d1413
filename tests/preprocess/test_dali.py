"""DALI's pipeline on its CPU device, which needs no driver, against OpenCV."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.cuda.nvidia import present_gpu
from perception.messages import Float32, Image, InputSpec, Needed
from perception.pixels import decode
from perception.preprocess.letterbox import Letterbox
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.preprocess.test_opencv import IMAGENET, YOLOV8, YOLOX, smooth_image

pytest.importorskip(
    "nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda130", exc_type=ImportError
)

from perception.preprocess import dali

SPECS = pytest.mark.parametrize("spec", [YOLOX, YOLOV8, IMAGENET], ids=["yolox", "yolov8", "imagenet"])
sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))


def by_opencv(image: Image, spec: InputSpec, image_size: tuple[int, int] | None = None) -> Float32:
    out = np.full((3, spec.height, spec.width), np.nan, np.float32)
    OpenCvPreprocessor(image_size or (image.shape[1], image.shape[0]), spec)(image, out)
    return out


def by_dali(image: Image, spec: InputSpec, image_size: tuple[int, int] | None = None) -> Float32:
    out = np.full((3, spec.height, spec.width), np.nan, np.float32)
    dali.DaliPreprocessor(image_size or (image.shape[1], image.shape[0]), spec)(image, out)
    return out


def grey_levels(difference: Any, spec: InputSpec) -> Any:
    return np.abs(difference) / (spec.scale / np.array(spec.std)[:, None, None])


def run(pipeline: Any, data: Any) -> Any:
    pipeline.build()
    pipeline.feed_input(dali.INPUT, [data])
    (prepared,) = pipeline.run()
    return np.array(prepared.at(0))


@SPECS
@pytest.mark.parametrize("size", [(193, 121), (120, 300), (40, 30), (96, 96), (640, 384)], ids=str)
def test_equals_opencv_to_one_grey_level(spec: InputSpec, size: tuple[int, int]) -> None:
    image = smooth_image(*size)

    prepared = by_dali(image, spec)

    difference = grey_levels(prepared - by_opencv(image, spec), spec)
    assert difference.max() <= 1 + 1e-3
    assert difference.mean() < 0.2  # rounding, not another geometry


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.sampled_from(["rgb", "bgr"]), st.sampled_from(["center", "bottom_right"]), st.data())
def test_equals_opencv_whatever_the_sizes(
    size: tuple[int, int],
    input_size: tuple[int, int],
    channel_order: Literal["rgb", "bgr"],
    pad_position: Literal["center", "bottom_right"],
    data: st.DataObject,
) -> None:
    spec = InputSpec(*input_size, channel_order, 1.0, pad_position=pad_position)
    few = data.draw(arrays(np.uint8, (4, 4, 3)), label="pixels")
    image = np.resize(few, (size[1], size[0], 3))

    assert np.abs(by_dali(image, spec) - by_opencv(image, spec)).max() <= 1 + 1e-3


@SPECS
def test_padding_is_exact(spec: InputSpec) -> None:
    image = smooth_image(300, 90)

    prepared, expected = by_dali(image, spec), by_opencv(image, spec)

    fit = Letterbox.fit((300, 90), (spec.width, spec.height), spec.pad_position)
    padding = np.ones((spec.height, spec.width), bool)
    padding[fit.top : fit.top + fit.resized_size[1], fit.left : fit.left + fit.resized_size[0]] = False
    assert padding.any()
    np.testing.assert_allclose(prepared[:, padding], expected[:, padding], rtol=1e-5)


def test_one_image_after_the_other() -> None:
    first, second = smooth_image(200, 100, seed=1), smooth_image(200, 100, seed=2)
    preprocess = dali.DaliPreprocessor((200, 100), YOLOX)
    out = np.empty((3, YOLOX.height, YOLOX.width), np.float32)

    for image in (first, second, first):
        preprocess(image, out)
        assert np.abs(out - by_opencv(image, YOLOX)).max() <= 1 + 1e-3


def test_an_image_that_comes_at_half_its_size() -> None:
    half = smooth_image(200, 100)

    difference = by_dali(half, YOLOX, (400, 200)) - by_opencv(half, YOLOX, (400, 200))

    assert np.abs(difference).max() <= 1 + 1e-3


def test_image_of_another_size_is_refused() -> None:
    preprocess = dali.DaliPreprocessor((640, 400), YOLOX)

    with pytest.raises(ValueError, match="640"):
        preprocess(np.zeros((480, 640, 3), np.uint8), np.empty((3, 96, 96), np.float32))


def test_half_precision_is_the_same_rounded() -> None:
    image = smooth_image(200, 100)
    fit = Letterbox.fit((200, 100), (IMAGENET.width, IMAGENET.height), IMAGENET.pad_position)

    half = run(dali.letterbox_pipeline(fit, IMAGENET, "pixels", half=True), image)

    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, by_dali(image, IMAGENET).astype(np.float16))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@SPECS
def test_jpegs_are_decoded_and_letterboxed(spec: InputSpec, subsampling: str) -> None:
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{subsampling}")
    data = cv2.imencode(".jpg", smooth_image(240, 180), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1]
    fit = Letterbox.fit((240, 180), (spec.width, spec.height), spec.pad_position)

    prepared = run(dali.letterbox_pipeline(fit, spec, "encoded"), data)

    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    # one grey level for resizing, one for how decoders round
    assert grey_levels(prepared - by_opencv(decoded, spec), spec).max() <= 2 + 1e-3


@pytest.mark.parametrize("size", [(400, 300), (800, 600), (1920, 1080)], ids=str)
def test_a_large_jpeg_is_seen_as_the_cpu_sees_it_decoded_smaller(size: tuple[int, int]) -> None:
    """Of noise, linear resizing from the full size would see something else."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    # with full chroma: on its CPU device DALI smooths any other, whatever it is told
    given = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_QUALITY, 98]
    data = np.asarray(cv2.imencode(".jpg", noise, given)[1], np.uint8).ravel()
    fit = Letterbox.fit(size, (YOLOX.width, YOLOX.height), YOLOX.pad_position)
    reduction = Needed(fit.resized_size).reduction(size)

    prepared = run(dali.letterbox_pipeline(fit, YOLOX, "encoded"), data)

    assert reduction > 1
    assert np.abs(prepared - by_opencv(decode(data, reduction), YOLOX, size)).max() <= 2
    assert np.abs(prepared - by_opencv(decode(data), YOLOX, size)).mean() > 10


def test_orientation_that_exif_asks_for_is_not_applied() -> None:
    image = smooth_image(64, 32)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    # APP1 with one IFD entry: tag 0x0112 (orientation), type SHORT, count 1, value 3 (turned by 180 degrees)
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x03\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]
    fit = Letterbox.fit((64, 32), (YOLOX.width, YOLOX.height), YOLOX.pad_position)
    pipeline = dali.letterbox_pipeline(fit, YOLOX, "encoded")

    prepared = run(pipeline, np.frombuffer(turned, np.uint8))

    np.testing.assert_array_equal(prepared, run(pipeline, np.frombuffer(jpeg, np.uint8)))


def test_after_a_broken_image_the_next_is_as_good_as_any() -> None:
    data = cv2.imencode(".jpg", smooth_image(400, 300))[1]
    fit = Letterbox.fit((400, 300), (YOLOX.width, YOLOX.height), YOLOX.pad_position)
    pipeline = dali.letterbox_pipeline(fit, YOLOX, "encoded")
    good = run(pipeline, data)

    with pytest.raises(RuntimeError):
        run(pipeline, data[: len(data) // 2])

    np.testing.assert_array_equal(run(pipeline, data), good)


def test_a_gpu_is_asked_for_by_the_same_definition() -> None:
    """Without a driver DALI refuses it, and that after the whole of it was defined."""
    if present_gpu() is not None:
        pytest.skip("there is a GPU: tests/gpu runs it")
    fit = Letterbox.fit((640, 384), (YOLOX.width, YOLOX.height), YOLOX.pad_position)

    for source in ("pixels", "encoded"):
        pipeline = dali.letterbox_pipeline(fit, YOLOX, source, gpu=0)
        with pytest.raises(RuntimeError, match="CUDA is not available"):
            pipeline.build()
