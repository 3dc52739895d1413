from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.fusion import association
from perception.messages import CLASSES, Float
from tests.fusion.simulator import labels_of

GATE = association.gate_of(0.997)


def matrix(n: int, m: int) -> st.SearchStrategy[Float]:
    return hnp.arrays(np.float64, (n, m), elements=st.floats(0, 20))


def test_the_gate_is_the_quantile_of_chi_squared_with_two_degrees_of_freedom() -> None:
    assert association.gate_of(0.95) == pytest.approx(5.991, abs=1e-3)
    assert association.gate_of(0.99) == pytest.approx(9.210, abs=1e-3)


def test_distances_are_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(7, 2, 2))
    spreads = roots @ roots.transpose(0, 2, 1) + np.eye(2)
    positions, measured = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    squared, determinants = association.distances(positions, spreads[:4], measured, spreads[4:])
    for i in range(4):
        for j in range(3):
            innovation, spread = measured[j] - positions[i], spreads[i] + spreads[4 + j]
            assert squared[i, j] == pytest.approx(innovation @ np.linalg.solve(spread, innovation))
            assert determinants[i, j] == pytest.approx(np.linalg.det(spread))


@given(st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(lambda shape: matrix(*shape)))
def test_pairs_are_one_to_one_within_the_gate_and_cannot_be_bettered(squared: Float) -> None:
    ones = np.ones_like(squared)
    rows, columns = association.assign(squared, ones, 0 * ones, GATE)
    assert (np.diff(rows) > 0).all()
    assert len(set(columns.tolist())) == len(columns)
    assert (squared[rows, columns] <= GATE).all()
    limit = GATE + 2 * math.log(3.0)
    worth = np.where(squared <= GATE, limit - squared, 0.0)
    wide = worth if worth.shape[0] <= worth.shape[1] else worth.T
    best = max(sum(wide[i, j] for i, j in enumerate(order)) for order in permutations(range(wide.shape[1]), len(wide)))
    assert worth[rows, columns].sum() == pytest.approx(best)


def test_a_vague_track_does_not_take_what_belongs_to_a_sharp_one() -> None:
    positions = np.array([[0.0, 0.0], [0.5, 0.0]])
    covariances = np.array([np.eye(2) * 25.0, np.eye(2) * 0.25])
    squared, determinants = association.distances(positions, covariances, np.array([[1.2, 0]]), np.eye(2)[None] * 0.25)
    assert squared[0, 0] < squared[1, 0]
    rows, _ = association.assign(squared, determinants, np.zeros((2, 1)), GATE)
    assert rows.tolist() == [1]


def test_a_track_that_explains_anything_explains_nothing() -> None:
    lost = np.eye(2)[None] * 1e6
    squared, determinants = association.distances(np.zeros((1, 2)), lost, np.ones((1, 2)), np.eye(2)[None])
    assert squared[0, 0] < 1
    rows, _ = association.assign(squared, determinants, np.zeros((1, 1)), GATE)
    assert len(rows) == 0


def seen_as(**looks: float) -> Float:
    return np.array([[looks.get(name, 0.0) for name in CLASSES]])


def test_classes_that_detectors_confuse_may_match_and_others_never() -> None:
    def against(evidence: Float, name: str) -> float:
        return float(association.confusion(evidence, labels_of(name))[0, 0])

    car, pedestrian = seen_as(car=3.0), seen_as(pedestrian=3.0)
    assert against(car, "car") == pytest.approx(0, abs=1e-6)
    assert 0 < against(car, "truck") < GATE
    assert against(seen_as(car=2.0, truck=2.0), "truck") < against(car, "truck") / 2
    assert 0 < against(pedestrian, "bicycle") < GATE
    for evidence, name in ((car, "pedestrian"), (pedestrian, "bus"), (car, "motorcycle")):
        confused = association.confusion(evidence, labels_of(name))
        assert len(association.assign(np.zeros((1, 1)), np.full((1, 1), 0.01), confused, GATE)[0]) == 0
    assert against(seen_as(), "bus") < GATE  # looks with a score of 0 leave every class open
