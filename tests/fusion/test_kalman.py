from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.fusion import kalman
from perception.messages import Float

seconds = st.floats(0.001, 2.0)
STRAY = np.array([0.3, 2.0, 0.0, 2.0, 5.0])


def some_tracks(seed: int = 0, n: int = 5) -> tuple[Float, Float]:
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(n, 4, 4))
    return rng.normal(size=(n, 4)) * 10, roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4)


@given(seconds, seconds)
def test_two_steps_are_one(first_s: float, second_s: float) -> None:
    tracks = some_tracks()
    in_two = kalman.predict(*kalman.predict(*tracks, first_s, STRAY), second_s, STRAY)
    at_once = kalman.predict(*tracks, first_s + second_s, STRAY)
    np.testing.assert_allclose(in_two[0], at_once[0], atol=1e-9)
    np.testing.assert_allclose(in_two[1], at_once[1], atol=1e-9)


@given(seconds)
def test_there_and_back_is_the_same_place_but_less_certain(elapsed_s: float) -> None:
    states, covariances = some_tracks()
    back = kalman.predict(*kalman.predict(states, covariances, elapsed_s, STRAY), -elapsed_s, STRAY)
    np.testing.assert_allclose(back[0], states, atol=1e-9)
    assert (np.linalg.eigvalsh(back[1] - covariances) > -1e-9).all()


def test_an_update_is_the_minimum_variance_mean_of_prediction_and_measurement() -> None:
    states, covariances = some_tracks(n=1)
    measured, noise = np.array([[3.0, -2.0]]), np.array([[[2.0, 0.5], [0.5, 1.0]]])
    state, covariance = kalman.update(states, covariances, measured, noise)
    information = np.linalg.inv(covariances[0])
    of_measurement = np.zeros((4, 4))
    of_measurement[:2, :2] = np.linalg.inv(noise[0])
    expected = np.linalg.inv(information + of_measurement)
    np.testing.assert_allclose(covariance[0], expected, atol=1e-9)
    mean = expected @ (information @ states[0] + of_measurement @ np.array([3.0, -2.0, 0, 0]))
    np.testing.assert_allclose(state[0], mean, atol=1e-9)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-4, 1e4)), min_size=1, max_size=30), st.integers(0, 2**31))
def test_covariances_stay_symmetric_and_positive(steps: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, covariances = kalman.initial(np.zeros((2, 2)), np.tile(np.eye(2), (2, 1, 1)), 8.0)
    for elapsed_s, variance in steps:
        states, covariances = kalman.predict(states, covariances, elapsed_s, STRAY[:2])
        noise = np.tile(np.diag([variance, variance * rng.uniform(0.01, 1)]), (2, 1, 1))
        states, covariances = kalman.update(states, covariances, states[:, :2] + rng.normal(size=(2, 2)), noise)
        np.testing.assert_array_equal(covariances, covariances.transpose(0, 2, 1))
        assert np.linalg.eigvalsh(covariances).min() > 0


def test_a_steady_velocity_is_learnt() -> None:
    rng = np.random.default_rng(0)
    states, covariances = kalman.initial(np.zeros((1, 2)), np.eye(2)[None] * 0.04, 8.0)
    for step in range(1, 40):
        states, covariances = kalman.predict(states, covariances, 0.1, np.full(len(states), 0.5))
        measured = np.array([[10.0, -3.0]]) * step * 0.1 + rng.normal(0, 0.2, (1, 2))
        states, covariances = kalman.update(states, covariances, measured, np.eye(2)[None] * 0.04)
    assert states[0, 2:] == pytest.approx([10, -3], abs=0.5)


def test_how_far_a_velocity_is_from_none_is_told_in_its_own_deviations() -> None:
    states = np.array([[9.0, 9, 0, 0], [9, 9, 3, 4], [9, 9, 3, 4]])
    covariances = np.array([np.eye(4), np.eye(4), np.diag([1.0, 1, 9, 4])])
    assert kalman.squared_distances(states[:, 2:], covariances[:, 2:, 2:]) == pytest.approx([0, 25, 5])


def test_inverses_of_small_matrices() -> None:
    matrices = some_tracks(n=6)[1][:, :2, :2]
    np.testing.assert_allclose(kalman.inverse_2x2(matrices) @ matrices, np.tile(np.eye(2), (6, 1, 1)), atol=1e-9)
