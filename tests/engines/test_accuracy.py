import math

import numpy as np
import pytest

from engines.accuracy import Errors, TrueBoxes, count_errors, evaluate, too_hard
from perception.messages import CLASSES, Candidates

CAR, PEDESTRIAN = CLASSES.index("car"), CLASSES.index("pedestrian")
BOXES = np.array([[10, 10, 60, 50], [100, 20, 115, 50], [200, 100, 400, 300]], np.float32)


def _truth(labels: list[int], ignored: list[bool] | None = None) -> TrueBoxes:
    count = len(labels)
    return TrueBoxes(BOXES[:count], np.array(labels, np.int32), np.array(ignored or [False] * count))


def _found(rows: list[int], labels: list[int]) -> Candidates:
    scores = np.linspace(0.9, 0.5, len(rows)).astype(np.float32)
    return Candidates(BOXES[rows], scores, np.array(labels, np.int32))


def test_finding_everything_is_one() -> None:
    result = evaluate([_truth([CAR, PEDESTRIAN, CAR])], [_found([0, 1, 2], [CAR, PEDESTRIAN, CAR])])
    assert result.map50 == pytest.approx(1.0)
    assert result.map50_95 == pytest.approx(1.0)
    assert result.objects == 3
    assert result.counts["car"] == 2


def test_a_class_that_is_not_there_is_left_out_of_the_mean() -> None:
    result = evaluate([_truth([CAR])], [_found([0], [CAR])])
    assert result.map50 == pytest.approx(1.0)
    assert math.isnan(result.per_class["bus"])


def test_finding_half_of_them_is_about_half() -> None:
    result = evaluate([_truth([CAR, CAR])], [_found([0], [CAR])])
    assert result.map50 == pytest.approx(0.5, abs=0.01)


def test_finding_nothing_at_all_is_zero() -> None:
    assert evaluate([_truth([CAR])], [_found([], [])]).map50 == 0


def test_the_wrong_class_is_a_miss_and_a_false_alarm() -> None:
    result = evaluate([_truth([CAR, PEDESTRIAN])], [_found([0, 1], [PEDESTRIAN, PEDESTRIAN])])
    assert result.per_class["car"] == 0
    assert result.per_class["pedestrian"] == pytest.approx(0.5, abs=0.01)


def test_ignored_objects_count_neither_way() -> None:
    truth = _truth([CAR, CAR], ignored=[False, True])
    assert evaluate([truth], [_found([0], [CAR])]).map50 == pytest.approx(1.0)
    assert evaluate([truth], [_found([1, 0], [CAR, CAR])]).map50 == pytest.approx(1.0)


def test_sizes_are_told_apart() -> None:
    result = evaluate([_truth([CAR, CAR, CAR])], [_found([0, 2], [CAR, CAR])])
    assert result.per_size["small"] == 0
    assert result.per_size["large"] == pytest.approx(1.0)


def test_errors_are_counted_where_the_line_is_drawn() -> None:
    truth = _truth([CAR, CAR, CAR], ignored=[False, False, True])
    far_off = np.array([[500, 500, 550, 550]], np.float32)
    found = Candidates(
        np.concatenate([BOXES[[0, 2, 0]], far_off, BOXES[[1]]]),
        np.array([0.9, 0.8, 0.7, 0.6, 0.3], np.float32),
        np.array([CAR] * 5, np.int32),
    )
    assert count_errors([truth], [found], 0.35) == Errors(objects=2, missed=1, false=2)  # one twice, one far off
    assert count_errors([truth], [found], 0.25) == Errors(objects=2, missed=0, false=2)
    wrong_class = Candidates(BOXES[[0]], np.array([0.9], np.float32), np.array([PEDESTRIAN], np.int32))
    assert count_errors([truth], [wrong_class], 0.35) == Errors(objects=2, missed=2, false=1)


def test_low_and_hidden_objects_are_too_hard() -> None:
    boxes = np.array([[0, 0, 9, 11.9], [0, 0, 9, 12], [0, 0, 9, 40]], np.float32)
    assert too_hard(boxes, np.array([1, 1, 0.3], np.float32)).tolist() == [True, False, True]
