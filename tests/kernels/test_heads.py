from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.cuda import kernels
from perception.detect.heads import EndToEndHead, Order, YoloV5Head, YoloV8Head, YoloXHead
from perception.detect.heads import grid as anchor_grid
from perception.detect.stock import SIZE_MEANS, StockHead
from perception.messages import Candidates, Float32, Int32
from tests.kernels import stages
from tests.kernels.grid import Grid

LABEL_OF: Final = np.array([-1, 0, 5, -1, 2, 0], np.int32)
CLASSES: Final = len(LABEL_OF)
THRESHOLD: Final = 0.3
SPECIAL: Final = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.004, THRESHOLD, -3e38, 3e38], np.float32)
DTYPES: Final = {"f32": np.float32, "i32": np.int32, "i64": np.int64}

_slowly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_seeds = st.integers(0, 2**32 - 1)
_wildness = st.sampled_from([0.0, 0.01, 0.2])


def noise(seed: int, shape: tuple[int, ...], wildness: float) -> Float32:
    """Numbers about the threshold, many of them equal, and a share of what no model should give."""
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 120, shape) / 100).astype(np.float32)
    return np.where(rng.random(shape) < wildness, rng.choice(SPECIAL, shape), values).astype(np.float32)


def decode(grid: Grid, kernel: str, args: Sequence[Any], **sizes: Any) -> list[tuple[NDArray[Any], ...]]:
    """By image, its candidates and the rows of other tables that go with them."""
    tables, count = stages.decode(grid, kernel, args, **sizes)
    return [tuple(table[image, :found] for table in tables) for image, found in enumerate(count)]


def assert_equal(got: NDArray[Any], expected: Candidates, *, exact: bool = True) -> None:
    np.testing.assert_array_equal(got["label"], expected.labels)
    if exact:
        np.testing.assert_array_equal(got["box"], expected.boxes)
        np.testing.assert_array_equal(got["score"], expected.scores)
    else:  # an exponential is not the same to the last bit everywhere
        np.testing.assert_allclose(got["box"], expected.boxes, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(got["score"], expected.scores, rtol=1e-5, atol=1e-7)


def sizes(*values: int) -> list[np.int32]:
    return [np.int32(value) for value in values]


@_slowly
@given(seed=_seeds, rows=st.integers(1, 300), wildness=_wildness)
def test_yolov5(grid: Grid, seed: int, rows: int, wildness: float) -> None:
    output = noise(seed, (2, rows, 5 + CLASSES), wildness)
    head = YoloV5Head(LABEL_OF, THRESHOLD)

    args = (output, *sizes(rows, CLASSES), LABEL_OF, np.float32(THRESHOLD))
    got = decode(grid, "decode_yolov5", args, images=2, rows=rows, limit=rows)

    for image in range(2):
        assert_equal(got[image][0], head([output[image]]))


@_slowly
@given(seed=_seeds, wildness=_wildness)
def test_yolox(grid: Grid, seed: int, wildness: float) -> None:
    anchors = anchor_grid((64, 96), (8, 16, 32))
    rows = len(anchors.strides)
    output = noise(seed, (2, rows, 5 + CLASSES), wildness)
    head = YoloXHead(anchors, LABEL_OF, THRESHOLD)

    args = (
        output, *sizes(rows, CLASSES), anchors.cells, anchors.strides, LABEL_OF, np.float32(THRESHOLD),
    )  # fmt: skip
    got = decode(grid, "decode_yolox", args, images=2, rows=rows, limit=rows)

    for image in range(2):
        assert_equal(got[image][0], head([output[image]]), exact=False)


@_slowly
@given(seed=_seeds, rows=st.integers(1, 300), wildness=_wildness)
def test_yolov8(grid: Grid, seed: int, rows: int, wildness: float) -> None:
    output = noise(seed, (2, 4 + CLASSES, rows), wildness)
    head = YoloV8Head(LABEL_OF, THRESHOLD)

    args = (output, *sizes(rows, CLASSES), LABEL_OF, np.float32(THRESHOLD))
    got = decode(grid, "decode_yolov8", args, images=2, rows=rows, limit=rows)

    for image in range(2):
        assert_equal(got[image][0], head([output[image]]))


@_slowly
@given(seed=_seeds, rows=st.integers(1, 300), wildness=_wildness)
def test_end_to_end_in_one_output(grid: Grid, seed: int, rows: int, wildness: float) -> None:
    output = noise(seed, (2, rows, 6), wildness)
    with np.errstate(over="ignore"):
        output[..., 5] = np.floor(output[..., 5] * 8) - 1  # from -1 to past the end, and what is no number
    head = EndToEndHead(None, LABEL_OF, THRESHOLD)

    flat = output.reshape(-1)
    columns = (flat, np.int32(6), flat[4:], np.int32(6), flat[5:], np.int32(6))
    args = (*columns, *sizes(rows, CLASSES), LABEL_OF, np.float32(THRESHOLD))
    got = decode(grid, "decode_end_to_end_f32", args, images=2, rows=rows, limit=rows)

    for image in range(2):
        assert_equal(got[image][0], head([output[image]]))


@_slowly
@given(seed=_seeds, rows=st.integers(1, 300), wildness=_wildness, dtype=st.sampled_from(list(DTYPES)))
def test_end_to_end_in_three_outputs(grid: Grid, seed: int, rows: int, wildness: float, dtype: str) -> None:
    boxes, scores = noise(seed, (2, rows, 4), wildness), noise(seed + 1, (2, rows), wildness)
    classes = np.random.default_rng(seed).integers(-2, CLASSES + 2, (2, rows)).astype(DTYPES[dtype])
    if dtype == "i64":
        classes[0, 0] = 2**32 + 1  # not to be taken for 1
    head = EndToEndHead(Order(2, 0, 1), LABEL_OF, THRESHOLD)

    columns = (boxes, np.int32(4), scores, np.int32(1), classes, np.int32(1))
    args = (*columns, *sizes(rows, CLASSES), LABEL_OF, np.float32(THRESHOLD))
    got = decode(grid, f"decode_end_to_end_{dtype}", args, images=2, rows=rows, limit=rows)

    for image in range(2):
        assert_equal(got[image][0], head([scores[image], classes[image], boxes[image]]))


def decode_stock(
    grid: Grid, scores: Float32, regression: Float32, label_of: Int32, threshold: float
) -> list[tuple[NDArray[Any], ...]]:
    images, locations = len(scores), scores.shape[2]
    rows = scores.shape[1] * locations * 4
    least_logit = np.float32(np.log(threshold / (1 - threshold)))
    args = (scores, regression, *sizes(rows, locations), label_of, least_logit, SIZE_MEANS)
    return decode(
        grid, "decode_stock", args, images=images, rows=rows, limit=min(1000, rows), tables=[kernels.ATTRIBUTES]
    )


def assert_attributes(got: NDArray[Any], expected: Candidates) -> None:
    attributes = expected.attributes
    assert attributes is not None
    # A centre is its offset times the box's side: out there, only that both are far away.
    np.testing.assert_allclose(got["centre"].clip(-1e4, 1e4), attributes.centres.clip(-1e4, 1e4), rtol=1e-3, atol=0.01)
    np.testing.assert_allclose(got["depth_over_focal"], attributes.depths_over_focal, rtol=1e-5)
    np.testing.assert_allclose(got["depth_std"], attributes.depth_stds, rtol=1e-5)
    np.testing.assert_allclose(got["size"], attributes.sizes, rtol=1e-5)
    np.testing.assert_allclose(got["alpha"], attributes.alphas, rtol=1e-5, atol=1e-6)


@_slowly
@given(seed=_seeds, wildness=_wildness, threshold=st.sampled_from([0.05, 0.5, 0.9]))
def test_stock(grid: Grid, seed: int, wildness: float, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        scores = (noise(seed, (2, 4, 6, 4 * 6), wildness) * 8 - 7).astype(np.float32)
    regression = rng.normal(0, 3, (2, 4, 6, 4 * 13)).astype(np.float32)
    regression = np.where(
        rng.random(regression.shape) < wildness, rng.choice(SPECIAL, regression.shape), regression
    ).astype(np.float32)
    head = StockHead((48, 32), LABEL_OF, threshold)

    got = decode_stock(grid, scores, regression, LABEL_OF, threshold)

    for image in range(2):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = head([scores[image], regression[image]])
        assert_equal(got[image][0], expected, exact=False)
        assert_attributes(got[image][1], expected)


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_stock_keeps_the_best_thousand(grid: Grid, levels: int) -> None:
    """Of 1536 cells over the threshold; where logits are equal, the first."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (1, 16, 24, 4 * 6)).astype(np.float32) / np.float32(levels)
    regression = rng.normal(0, 1, (1, 16, 24, 4 * 13)).astype(np.float32)
    label_of = np.arange(6, dtype=np.int32)

    got = decode_stock(grid, scores, regression, label_of, 0.25)

    expected = StockHead((192, 128), label_of, 0.25)([scores[0], regression[0]])
    assert len(expected.scores) == 1000
    assert_equal(got[0][0], expected, exact=False)
    assert_attributes(got[0][1], expected)


@_slowly
@given(
    keys=st.lists(st.sampled_from([0, 1, 2, 255, 256, 2**31, 2**31 + 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)),
    limit=st.integers(1, 40),
    threads=st.sampled_from([1, 3, 32, 1024]),
)
def test_selection(grid: Grid, keys: list[int], limit: int, threads: int) -> None:
    given = np.array([*keys, 0], np.uint32)
    selected, count = stages.select(grid, given[None], limit, (threads, 1, 1))

    best = np.argsort(-given.astype(np.int64), kind="stable")[:limit]
    assert selected[0, : count[0]].tolist() == sorted(row for row in best if given[row])
