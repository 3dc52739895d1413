from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.config import NmsConfig
from perception.cuda import kernels
from perception.messages import Candidates
from perception.nms.numpy import NumpyNms
from tests.kernels import stages
from tests.kernels.grid import Grid, buffer

STORED: Final = np.load(Path(__file__).parent.parent / "nms" / "batched_nms.npz")  # torchvision's answers
SPECIAL: Final = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-30, -3e38, 3e38], np.float32)
_slowly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(boxes: Any, scores: Any, labels: Any) -> NDArray[Any]:
    made = np.zeros(len(scores), kernels.CANDIDATE)
    made["box"], made["score"], made["label"] = np.reshape(boxes, (-1, 4)), scores, labels
    return made


def numpy_nms(given: NDArray[Any], config: NmsConfig) -> NDArray[Any]:
    kept = NumpyNms(config)(Candidates(given["box"].copy(), given["score"].copy(), given["label"].copy()))
    return table(kept.boxes, kept.scores, kept.labels)


def kernel_nms(grid: Grid, images: Sequence[NDArray[Any]], config: NmsConfig) -> list[NDArray[Any]]:
    """All images at once; the lists are longer than what is in them, with rubbish behind it."""
    capacity = max(map(len, images)) + 3
    candidates = buffer(len(images) * capacity, kernels.CANDIDATE).reshape(len(images), capacity)
    count = np.array([len(image) for image in images], np.int32)
    for row, image in zip(candidates, images, strict=True):
        row[: len(image)] = image
    kept, kept_count = stages.suppress(grid, candidates, count, config)
    taken = stages.take(grid, candidates, kept, kept_count)
    return [np.array(row[:found]) for row, found in zip(taken, kept_count, strict=True)]


def assert_same(grid: Grid, images: Sequence[NDArray[Any]], config: NmsConfig) -> None:
    for got, given_ in zip(kernel_nms(grid, images, config), images, strict=True):
        np.testing.assert_array_equal(got, numpy_nms(given_, config))


@pytest.mark.parametrize("answer", [name for name in STORED.files if "_kept_" in name])
def test_equals_torchvision(grid: Grid, answer: str) -> None:
    case, _, threshold = answer.split("_")
    given_ = table(*(STORED[f"{case}_{field}"] for field in ("boxes", "scores", "labels")))
    config = NmsConfig(iou_threshold=float(threshold), max_candidates=2048, max_detections=2048)

    (got,) = kernel_nms(grid, [given_], config)

    np.testing.assert_array_equal(got, given_[STORED[answer]])


@st.composite
def scenes(draw: st.DrawFn) -> NDArray[Any]:
    """Few places, sizes, scores and classes, so that boxes coincide and scores tie; some of it is no box."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, step = draw(st.integers(0, 200)), draw(st.sampled_from([0.25, 1.0, 7.0]))
    corner = rng.integers(0, 12, (count, 2)) * step
    boxes = np.concatenate([corner, corner + rng.integers(0, 6, (count, 2)) * step], axis=1).astype(np.float32)
    scores = (rng.integers(1, draw(st.sampled_from([2, 5, 1000])), count) / 1000).astype(np.float32)
    wild = rng.random(count) < draw(st.sampled_from([0.0, 0.1]))
    boxes[wild, rng.integers(0, 4)] = rng.choice(SPECIAL, wild.sum())
    scores[np.roll(wild, 1)] = rng.choice(SPECIAL, wild.sum())
    return table(boxes, scores, rng.integers(0, draw(st.integers(1, 4)), count))


@_slowly
@given(
    images=st.lists(scenes(), min_size=1, max_size=3),
    threshold=st.sampled_from([0.1, 0.5, 0.6, 0.9]),
    max_candidates=st.integers(1, 220),
    max_detections=st.integers(1, 100),
)
def test_equals_numpy(
    grid: Grid, images: list[NDArray[Any]], threshold: float, max_candidates: int, max_detections: int
) -> None:
    config = NmsConfig(iou_threshold=threshold, max_candidates=max_candidates, max_detections=max_detections)

    assert_same(grid, images, config)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 129])
def test_all_boxes_the_same(grid: Grid, count: int) -> None:
    same = table(np.tile([1, 2, 30, 40], (count, 1)), np.full(count, 0.5), np.zeros(count))
    classes = same.copy()
    classes["label"] = np.arange(count)

    assert_same(grid, [same, classes], NmsConfig(max_candidates=128, max_detections=100))


def test_more_boxes_apart_than_are_kept(grid: Grid) -> None:
    corner = np.arange(700)[:, None] * 10.0
    apart = table(np.hstack([corner, corner, corner + 5, corner + 5]), np.linspace(0.1, 0.9, 700), np.zeros(700))

    assert_same(grid, [apart], NmsConfig(max_candidates=500, max_detections=77))


def test_crowd_over_many_words(grid: Grid) -> None:
    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 200, (900, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 60, (900, 2))])
    crowd = table(boxes, rng.uniform(0, 1, 900), rng.integers(0, 3, 900))

    assert_same(grid, [crowd, crowd[::-1]], NmsConfig(iou_threshold=0.3, max_candidates=800, max_detections=300))


def test_both_zeros_tie(grid: Grid) -> None:
    apart = table([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], [-0.0, 0.0, -0.0], np.zeros(3))

    assert_same(grid, [apart], NmsConfig())
