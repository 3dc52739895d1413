"""Which measurement belongs to which track: gating by Mahalanobis distance, then one optimal assignment."""

from __future__ import annotations

import math
from typing import Final

import lap
import numpy as np
from numpy.typing import NDArray

from perception.fusion import kalman
from perception.messages import CLASSES, Float, Int32

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

_CONFUSED: Final = (
    (("motorcycle", "bicycle", "pedestrian"), 0.05),  # a rider is both
    (("motorcycle", "bicycle"), 0.1),
    (("car", "truck", "bus"), 0.1),
)
"""How often a detector takes one of these classes for another of them; what stands later counts."""
_NEW_OBJECT_AREA_M2: Final = 3.0
"""A track at its gate, and vaguer than this, explains a measurement no better than a new object does."""
_NEVER: Final = 1e6
_TINY: Final = 1e-12


def _label_likelihood() -> Float:
    """How likely a label is (columns) by the class of the object (rows)."""
    likelihood = np.full((len(CLASSES), len(CLASSES)), _TINY)
    for names, often in _CONFUSED:
        members = [CLASSES.index(name) for name in names]
        likelihood[np.ix_(members, members)] = often
    np.fill_diagonal(likelihood, 1.0)
    return likelihood


_LABEL_LIKELIHOOD: Final = _label_likelihood()


def gate_of(probability: float) -> float:
    """The squared Mahalanobis distance within which a position of two coordinates lies with `probability`."""
    return -2.0 * math.log1p(-probability)


def distances(positions: Float, covariances: Float, measured: Float, noise: Float) -> tuple[Float, Float]:
    """Squared Mahalanobis distances (tracks, measurements), and the determinants of the innovations in m^4.

    Positions are (N, 2) and (M, 2), covariances (N, 2, 2) and (M, 2, 2).
    """
    # By components: with a last axis of two, sums over all pairs take twice as long.
    x = measured[:, 0] - positions[:, 0, None]
    y = measured[:, 1] - positions[:, 1, None]
    xx = noise[:, 0, 0] + covariances[:, 0, 0, None]
    xy = noise[:, 0, 1] + covariances[:, 0, 1, None]
    yy = noise[:, 1, 1] + covariances[:, 1, 1, None]
    return kalman.mahalanobis(x, y, xx, xy, yy)


def confusion(evidence: Float, labels: Int32) -> Float:
    """What the labels (M,) speak against the tracks, (N, M), on the scale of a squared distance.

    That is minus twice their log likelihood given the classes that the tracks' `evidence` (N, classes) points to: a
    track that has been both a car and a truck may be either, one that was never but a car hardly.
    """
    evidence = evidence + _TINY  # a score of 0 tells nothing, so that any class is as likely
    classes = evidence / evidence.sum(axis=1, keepdims=True)
    against: Float = -2 * np.log(classes @ _LABEL_LIKELIHOOD)[:, labels]
    return against


def assign(squared: Float, determinants: Float, confused: Float, gate: float) -> tuple[Index, Index]:
    """Rows and columns of the pairs that are most likely together, by ascending row; all three are (N, M).

    The cost of a pair is its negative log likelihood (twice, constants left out): by distance alone a vague track would
    take what belongs to a sharp one. A measurement is left over where a new object is the likelier explanation.
    """
    gated = squared <= gate
    candidates = np.flatnonzero(gated.any(axis=1))
    cost = np.where(gated, squared + np.log(determinants) + confused, _NEVER)[candidates]
    limit = gate + 2 * math.log(_NEW_OBJECT_AREA_M2)
    columns = lap.lapjv(cost, extend_cost=True, cost_limit=limit, return_cost=False)[0]
    assigned = columns >= 0
    return candidates[assigned], columns[assigned].astype(np.intp)
