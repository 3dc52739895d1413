"""A Kalman filter of constant velocity over the ground, for many tracks at once.

States (N, 4) are x, y, vx, vy in metres and metres per second, in a fixed frame; covariances are (N, 4, 4).
Formulas: Bar-Shalom, Li and Kirubarajan 2001, "Estimation with Applications to Tracking and Navigation", ch. 5 and 6.
"""

from __future__ import annotations

import numpy as np

from perception.messages import Float


def initial(positions: Float, noise: Float, speed_std_mps: float) -> tuple[Float, Float]:
    """States and covariances of objects measured once, at (N, 2) with covariance (N, 2, 2), and moving anywhere."""
    states = np.zeros((len(positions), 4))
    states[:, :2] = positions
    covariances = np.zeros((len(positions), 4, 4))
    covariances[:, :2, :2] = noise
    covariances[:, [2, 3], [2, 3]] = speed_std_mps**2
    return states, covariances


def predict(states: Float, covariances: Float, elapsed_s: float, acceleration_std_mps2: Float) -> tuple[Float, Float]:
    """Move in time. `elapsed_s` may be negative: then towards the past, and no more certain for it.

    Velocity is a random walk with a deviation of `acceleration_std_mps2` (N,) after one second, whatever the steps.
    """
    t = elapsed_s
    moved = np.array([[1, 0, t, 0], [0, 1, 0, t], [0, 0, 1, 0], [0, 0, 0, 1]])
    return states @ moved.T, moved @ covariances @ moved.T + strayed(t, acceleration_std_mps2)


def strayed(elapsed_s: float, acceleration_std_mps2: Float) -> Float:
    """How much less certain (N, 4, 4) a state is after a random walk of its velocity: see `predict`."""
    t = elapsed_s
    p, c = t * t / 3, t / 2
    of_unit_velocity = np.array([[p, 0, c, 0], [0, p, 0, c], [c, 0, 1, 0], [0, c, 0, 1]])
    velocity_variance = acceleration_std_mps2**2 * abs(t)
    covariances: Float = velocity_variance[:, None, None] * of_unit_velocity
    return covariances


def update(states: Float, covariances: Float, positions: Float, noise: Float) -> tuple[Float, Float]:
    """Take in one position (N, 2) with covariance (N, 2, 2) for each state."""
    gain = covariances[:, :, :2] @ inverse_2x2(covariances[:, :2, :2] + noise)
    innovation = positions - states[:, :2]
    covariances = covariances - gain @ covariances[:, :2]
    symmetric = (covariances + covariances.transpose(0, 2, 1)) / 2
    return states + (gain @ innovation[:, :, None])[:, :, 0], symmetric


def squared_distances(vectors: Float, covariances: Float) -> Float:
    """How far each of (N, 2) is from nothing: squared Mahalanobis distances (N,)."""
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    return mahalanobis(vectors[:, 0], vectors[:, 1], xx, xy, yy)[0]


def mahalanobis(x: Float, y: Float, xx: Float, xy: Float, yy: Float) -> tuple[Float, Float]:
    """Squared distances of x, y under covariances [[xx, xy], [xy, yy]], and their determinants, all of one shape."""
    determinants = xx * yy - xy * xy
    return (yy * x * x - 2 * xy * x * y + xx * y * y) / determinants, determinants


def inverse_2x2(matrices: Float) -> Float:
    """Inverses of (..., 2, 2): in closed form, which for so many so small ones is faster than LAPACK."""
    a, b = matrices[..., 0, 0], matrices[..., 0, 1]
    c, d = matrices[..., 1, 0], matrices[..., 1, 1]
    inverses = np.empty_like(matrices)
    inverses[..., 0, 0], inverses[..., 0, 1] = d, -b
    inverses[..., 1, 0], inverses[..., 1, 1] = -c, a
    return inverses / (a * d - b * c)[..., None, None]
