from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.messages import Float32, Image, InputSpec
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.kernels import stages
from tests.kernels.grid import Grid

Bytes = NDArray[np.uint8]

YOLOX: Final = InputSpec(48, 40, "bgr", 1.0, pad_position="bottom_right")
YOLOV8: Final = InputSpec(48, 40, "rgb", 1 / 255)
IMAGENET: Final = InputSpec(
    32, 48, "rgb", 1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), pad_value=0
)


class Source(NamedTuple):
    """A camera's bytes as a kernel takes them, and as OpenCV converts them."""

    planes: tuple[Bytes, ...]
    pitch: int
    image: Image


def bgr(rng: np.random.Generator, width: int, height: int, spare: int) -> Source:
    pixels = rng.integers(0, 256, (height, 3 * width + spare), np.uint8)
    image = pixels[:, : 3 * width].reshape(height, width, 3)
    return Source((pixels,), pixels.shape[1], np.ascontiguousarray(image))


def nv12(rng: np.random.Generator, width: int, height: int, spare: int) -> Source:
    even_width, even_height = width + width % 2, height + height % 2  # OpenCV converts no others
    rows = rng.integers(0, 256, (even_height * 3 // 2, even_width + spare), np.uint8)
    image = cv2.cvtColor(np.ascontiguousarray(rows[:, :even_width]), cv2.COLOR_YUV2BGR_NV12)[:height, :width]
    return Source((rows[:even_height], rows[even_height:]), rows.shape[1], np.ascontiguousarray(image, np.uint8))


def yuyv(rng: np.random.Generator, width: int, height: int, spare: int) -> Source:
    even_width = width + width % 2
    rows = rng.integers(0, 256, (height, 2 * even_width + spare), np.uint8)
    pairs = np.ascontiguousarray(rows[:, : 2 * even_width]).reshape(height, even_width, 2)
    image = cv2.cvtColor(pairs, cv2.COLOR_YUV2BGR_YUY2)[:, :width]
    return Source((rows,), rows.shape[1], np.ascontiguousarray(image, np.uint8))


FORMATS: Final[dict[str, Callable[[np.random.Generator, int, int, int], Source]]] = {
    "bgr": bgr,
    "nv12": nv12,
    "yuyv": yuyv,
}


def plan(source: Source, spec: InputSpec) -> Any:
    height, width = source.image.shape[:2]
    return stages.letterbox_plan((width, height), source.pitch, spec)


def letterbox(grid: Grid, kernel: str, source: Source, planned: Any, dtype: Any) -> NDArray[Any]:
    return stages.letterbox(grid, kernel, source.planes, planned, dtype)


def on_cpu(source: Source, spec: InputSpec) -> Float32:
    out = np.empty((3, spec.height, spec.width), np.float32)
    height, width = source.image.shape[:2]
    OpenCvPreprocessor((width, height), spec)(source.image, out)
    return out


def grey_levels(values: NDArray[Any], spec: InputSpec) -> NDArray[np.float64]:
    mean, std = (np.array(of)[:, None, None] for of in (spec.mean, spec.std))
    return np.asarray((values * std + mean) / spec.scale, np.float64)


@pytest.mark.parametrize("spec", [YOLOX, YOLOV8, IMAGENET], ids=["yolox", "yolov8", "imagenet"])
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(96, 80), (193, 121), (61, 37), (20, 11)], ids=str)
def test_equals_opencv(grid: Grid, pixel_format: str, size: tuple[int, int], spec: InputSpec) -> None:
    source = FORMATS[pixel_format](np.random.default_rng(0), *size, 7)

    got = letterbox(grid, f"letterbox_{pixel_format}_f32", source, plan(source, spec), np.float32)

    apart = np.abs(grey_levels(got, spec) - grey_levels(on_cpu(source, spec), spec))
    assert apart.max() < 1.001
    assert (apart > 0.001).mean() < 0.25  # OpenCV rounds in other places on other processors


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixel_format=st.sampled_from(list(FORMATS)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    spec=st.builds(
        InputSpec,
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from(["rgb", "bgr"]),
        st.just(1.0),
        pad_position=st.sampled_from(["center", "bottom_right"]),
    ),
    seed=st.integers(0, 9),
)
def test_any_size_down_to_one_pixel(
    grid: Grid, pixel_format: str, size: tuple[int, int], spec: InputSpec, seed: int
) -> None:
    source = FORMATS[pixel_format](np.random.default_rng(seed), *size, seed)

    got = letterbox(grid, f"letterbox_{pixel_format}_f32", source, plan(source, spec), np.float32)

    assert np.abs(got - on_cpu(source, spec)).max() <= 1


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv"])
def test_colours_are_opencvs_to_the_bit(grid: Grid, pixel_format: str) -> None:
    """Without resizing nothing is sampled, and chroma goes with two pixels, the odd last column's with one."""
    source = FORMATS[pixel_format](np.random.default_rng(1), 47, 39, 0)
    spec = InputSpec(47, 39, "bgr", 1.0)

    got = letterbox(grid, f"letterbox_{pixel_format}_f32", source, plan(source, spec), np.float32)

    np.testing.assert_array_equal(got, source.image.transpose(2, 0, 1))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_half_is_the_float_rounded(grid: Grid, pixel_format: str) -> None:
    source = FORMATS[pixel_format](np.random.default_rng(2), 64, 48, 0)
    planned = plan(source, IMAGENET)

    full = letterbox(grid, f"letterbox_{pixel_format}_f32", source, planned, np.float32)
    half = letterbox(grid, f"letterbox_{pixel_format}_f16", source, planned, np.float16)

    np.testing.assert_array_equal(half, full.astype(np.float16))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gain=st.floats(width=32, allow_nan=False), bias=st.floats(width=32, allow_nan=False))
@example(gain=0.0, bias=65519.0)  # the largest half
@example(gain=0.0, bias=65520.0)  # the smallest that is rounded to infinity
@example(gain=2.0**-25, bias=0.0)  # odd multiples lie half way between subnormals
@example(gain=-(2.0**-14), bias=2.0**-24)
@example(gain=1 + 2.0**-11, bias=0.0)  # half way between normals
def test_half_of_any_float(grid: Grid, gain: float, bias: float) -> None:
    """Subnormal, over the largest, infinite and not a number: as NumPy rounds."""
    source = bgr(np.random.default_rng(3), 8, 2, 0)
    planned = plan(source, InputSpec(8, 2, "bgr", 1.0))
    planned["gain"], planned["bias"] = gain, bias

    full = letterbox(grid, "letterbox_bgr_f32", source, planned, np.float32)
    half = letterbox(grid, "letterbox_bgr_f16", source, planned, np.float16)

    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, full.astype(np.float16))
