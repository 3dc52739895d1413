from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.messages import Float, Float32, Image, InputSpec
from perception.preprocess.opencv import OpenCvPreprocessor

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
YOLOX = InputSpec(96, 96, "bgr", 1.0, pad_position="bottom_right")
YOLOV8 = InputSpec(128, 96, "rgb", 1 / 255)
IMAGENET = InputSpec(64, 96, "rgb", 1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD, pad_value=0)


def smooth_image(width: int, height: int, seed: int = 0) -> Image:
    """Random blobs of light: what bilinear sampling may be checked on to one grey level."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3)).astype(np.float64)
    return np.ascontiguousarray(bilinear(coarse, width, height).round().astype(np.uint8))


def bilinear(image: NDArray[np.generic], width: int, height: int) -> Float:
    """Sample at half-pixel centres, in double precision; beyond the border the border goes on."""
    pixels = np.asarray(image, np.float64)

    def neighbours(size: int, of: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Float]:
        position = np.clip((np.arange(size) + 0.5) * of / size - 0.5, 0, of - 1)
        first = np.floor(position).astype(np.intp)
        return first, np.minimum(first + 1, of - 1), position - first

    top, bottom, down = neighbours(height, pixels.shape[0])
    left, right, across = neighbours(width, pixels.shape[1])
    across, down = across[None, :, None], down[:, None, None]
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, right] * across
    lower = pixels[bottom][:, left] * (1 - across) + pixels[bottom][:, right] * across
    sampled: Float = upper * (1 - down) + lower * down
    return sampled


def reference(image: Image, spec: InputSpec) -> Float:
    """What the class documentation says, one step after the other, in double precision."""
    height, width = image.shape[:2]
    scale = min(spec.width / width, spec.height / height)
    new_width, new_height = round(width * scale), round(height * scale)
    canvas = np.full((spec.height, spec.width, 3), float(spec.pad_value))
    centred = spec.pad_position == "center"
    left = (spec.width - new_width) // 2 if centred else 0
    top = (spec.height - new_height) // 2 if centred else 0
    canvas[top : top + new_height, left : left + new_width] = bilinear(image, new_width, new_height)
    if spec.channel_order == "rgb":
        canvas = canvas[:, :, ::-1]
    prepared: Float = ((canvas * spec.scale - spec.mean) / spec.std).transpose(2, 0, 1)
    return prepared


def prepare(image: Image, spec: InputSpec) -> Float32:
    out = np.full((3, spec.height, spec.width), np.nan, np.float32)
    OpenCvPreprocessor((image.shape[1], image.shape[0]), spec)(image, out)
    return out


@pytest.mark.parametrize("spec", [YOLOX, YOLOV8, IMAGENET], ids=["yolox", "yolov8", "imagenet"])
@pytest.mark.parametrize("size", [(193, 121), (120, 300), (40, 30), (96, 96)], ids=str)
def test_agrees_with_the_float_reference_to_one_grey_level(spec: InputSpec, size: tuple[int, int]) -> None:
    image = smooth_image(*size)

    prepared = prepare(image, spec)

    grey_level = spec.scale / np.array(spec.std)[:, None, None]
    difference = np.abs(prepared - reference(image, spec)) / grey_level
    assert difference.max() <= 1 + 1e-3


def test_padding_is_filled_again_in_a_used_buffer() -> None:
    image = smooth_image(200, 100)
    out = np.full((3, YOLOV8.height, YOLOV8.width), 7.0, np.float32)
    preprocess = OpenCvPreprocessor((200, 100), YOLOV8)

    preprocess(image, out)

    np.testing.assert_allclose(out[:, :16], 114 / 255, rtol=1e-6)
    np.testing.assert_allclose(out[:, -16:], 114 / 255, rtol=1e-6)


def test_geometry_says_where_an_object_lands() -> None:
    image = np.zeros((400, 640, 3), np.uint8)
    image[100:180, 200:440] = 255
    preprocess = OpenCvPreprocessor((640, 400), YOLOV8)
    out = np.empty((3, YOLOV8.height, YOLOV8.width), np.float32)

    preprocess(image, out)

    left, top, right, bottom = preprocess.letterbox.to_input(np.array([[200, 100, 440, 180]], np.float32))[0]
    lit = np.argwhere(out[0] > 0.9)
    np.testing.assert_allclose(lit.min(axis=0), [top, left], atol=0.51)
    np.testing.assert_allclose(lit.max(axis=0) + 1, [bottom, right], atol=0.51)


def test_buffers_are_made_once() -> None:
    image = smooth_image(640, 400)
    out = np.empty((3, 416, 416), np.float32)
    preprocess = OpenCvPreprocessor((640, 400), InputSpec(416, 416, "rgb", 1 / 255))
    preprocess(image, out)

    tracemalloc.start()
    preprocess(image, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    one_plane = 416 * 260  # the smallest of them
    assert peak < one_plane


def test_image_of_another_size_is_refused() -> None:
    preprocess = OpenCvPreprocessor((640, 400), YOLOX)

    with pytest.raises(ValueError, match="640"):
        preprocess(np.zeros((480, 640, 3), np.uint8), np.empty((3, 96, 96), np.float32))


@pytest.mark.parametrize("reduction", [2, 4])
def test_an_image_that_comes_smaller_is_the_same_picture(reduction: int) -> None:
    image = smooth_image(1024, 512)
    height, width = image.shape[:2]
    means = image.reshape(height // reduction, reduction, width // reduction, reduction, 3).mean((1, 3))
    smaller = np.ascontiguousarray(means.round().astype(np.uint8))
    preprocess = OpenCvPreprocessor((width, height), YOLOX)
    whole, reduced = np.empty((2, 3, YOLOX.height, YOLOX.width), np.float32)
    preprocess(image, whole)
    preprocess(smaller, reduced)
    # They differ in how they see the grain of the image, not in where things are.
    shifted = np.abs(whole[:, :, 1:] - reduced[:, :, :-1]).mean()
    assert np.abs(whole - reduced).mean() < 0.5 * shifted
