from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.config import NmsConfig
from perception.messages import Candidates
from perception.nms.numpy import NumpyNms

STORED = np.load(Path(__file__).with_name("batched_nms.npz"))  # by make_batched_nms.py, with torchvision


def candidates(boxes: object, scores: object, labels: object) -> Candidates:
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def nms(iou_threshold: float = 0.5, max_candidates: int = 10_000, max_detections: int = 10_000) -> NumpyNms:
    return NumpyNms(
        NmsConfig(iou_threshold=iou_threshold, max_candidates=max_candidates, max_detections=max_detections)
    )


@pytest.mark.parametrize("answer", [name for name in STORED.files if "_kept_" in name])
def test_equals_torchvision(answer: str) -> None:
    case, _, threshold = answer.split("_")
    given = candidates(*(STORED[f"{case}_{field}"] for field in ("boxes", "scores", "labels")))

    kept = nms(float(threshold))(given)

    expected = STORED[answer]
    np.testing.assert_array_equal(kept.boxes, given.boxes[expected])
    np.testing.assert_array_equal(kept.scores, given.scores[expected])
    np.testing.assert_array_equal(kept.labels, given.labels[expected])


def test_bounds_cut_the_worst_first() -> None:
    given = candidates(*(STORED[f"many_{field}"] for field in ("boxes", "scores", "labels")))
    unbounded = nms()(given)

    few = nms(max_detections=50)(given)
    best = np.argsort(-given.scores)[:300]
    of_best = nms()(candidates(given.boxes[best], given.scores[best], given.labels[best]))

    np.testing.assert_array_equal(few.scores, unbounded.scores[:50])
    np.testing.assert_array_equal(nms(max_candidates=300)(given).boxes, of_best.boxes)


def test_overlap_of_another_class_does_not_count() -> None:
    given = candidates([[0, 0, 10, 10]] * 2, [0.9, 0.8], [0, 1])

    assert len(nms()(given).scores) == 2


def test_first_of_equals_is_kept() -> None:
    given = candidates([[0, 0, 10, 10], [0, 0, 10.5, 10], [0, 0, 10, 10.5]], [0.5, 0.5, 0.5], [2, 2, 2])

    np.testing.assert_array_equal(nms()(given).boxes, [[0, 0, 10, 10]])


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_threshold_itself_is_torchvisions(threshold: float) -> None:
    """An IoU of 1/2 does not exceed 0.5; one of 3/5 is 0.60000002 in float32 and exceeds the double 0.6."""
    boxes = {0.5: [[0, 0, 10, 10], [0, 0, 10, 5]], 0.6: [[0, 0, 10, 10], [0, 0, 10, 6]]}[threshold]

    kept = nms(threshold)(candidates(boxes, [0.9, 0.8], [0, 0]))

    assert len(kept.scores) == {0.5: 2, 0.6: 1}[threshold]


def test_what_is_no_box_is_dropped() -> None:
    nan, inf = np.nan, np.inf
    unsound = [
        [5, 5, 5, 9], [9, 9, 1, 1], [0, 0, nan, 5], [0, 0, inf, 5], [-inf, 0, inf, 5],
        [-3e38, -3e38, 3e38, 3e38], [0, 0, 1e-30, 1e-30],
    ]  # fmt: skip
    given = candidates(
        [*unsound, [0, 0, 4, 4], [0, 0, 4, 4], [20, 20, 24, 24]], [0.99] * len(unsound) + [nan, 0.6, 0.7], [0] * 10
    )

    kept = nms()(given)

    np.testing.assert_array_equal(kept.boxes, [[20, 20, 24, 24], [0, 0, 4, 4]])


def test_nothing_gives_nothing() -> None:
    kept = nms()(candidates([], [], []))

    assert kept.boxes.shape == (0, 4)
    assert kept.scores.shape == kept.labels.shape == (0,)


box = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(
    st.lists(st.tuples(box, st.integers(1, 5), st.integers(0, 2)), max_size=300),
    st.sampled_from([0.2113, 0.4567, 0.8123]),
)
def test_equals_the_definition(objects: list[tuple[tuple[int, int, int, int], int, int]], threshold: float) -> None:
    boxes = [o[0] for o in objects]
    scores = [o[1] / 5 for o in objects]
    labels = [o[2] for o in objects]

    expected: list[int] = []
    for i in sorted(range(len(objects)), key=lambda i: -scores[i]):
        if all(labels[i] != labels[k] or iou(boxes[i], boxes[k]) <= threshold for k in expected):
            expected.append(i)

    kept = nms(threshold)(candidates(boxes, scores, labels))
    np.testing.assert_array_equal(kept.boxes, np.array([boxes[i] for i in expected]).reshape(-1, 4))
    np.testing.assert_array_equal(kept.labels, [labels[i] for i in expected])


def iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)
