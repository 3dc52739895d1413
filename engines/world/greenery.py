"""Trees, bushes, parks."""

from __future__ import annotations

from typing import Final

import numpy as np

from engines.world.mesh import LEAVES, Mesh, ball, box, linear, pillar
from engines.world.town import Town
from perception.messages import Float

LEAF: Final = tuple(linear(c) for c in ("#4c6b34", "#5d7a3a", "#3f5f36", "#6d7f3d", "#7d7a38", "#54703f"))
_BARK: Final = linear("#4f4338")


def park(parts: list[Mesh], low: Float, high: Float, town: Town, rng: np.random.Generator) -> None:
    """Trees, bushes and hedges between two crossing paths."""
    middle = (low + high) / 2
    for x in np.arange(low[0] + 4, high[0] - 3, 9.0):
        for y in np.arange(low[1] + 4, high[1] - 3, 9.0):
            place = np.array([x, y]) + rng.uniform(-3, 3, 2)
            if rng.random() < 0.75 and (np.abs(place - middle) > 3).all() and not town.built_over(*place):
                tree(parts, float(place[0]), float(place[1]), rng, rng.uniform(0.8, 1.5))
    for _ in range(10):
        x, y = rng.uniform(low + 2, high - 2)
        if not town.built_over(x, y):
            _bush(parts, x, y, rng)
    hedge = LEAF[2] * 0.7
    pieces = [x for x in np.arange(low[0] + 3.5, high[0] - 3, 4.0) if abs(x - middle[0]) > 4]
    for y in (low[1] + 0.4, high[1] - 0.4):
        places = [(x, y, 0.45) for x in pieces if not town.built_over(x, y)]
        parts += [box((4.02, 0.7, 0.9), place, hedge, LEAVES, (1.0, 0.85)) for place in places]


def _bush(parts: list[Mesh], x: float, y: float, rng: np.random.Generator) -> None:
    colour = LEAF[int(rng.integers(len(LEAF)))] * rng.uniform(0.7, 1.0)
    size = rng.uniform(0.6, 1.3)
    parts.append(_crown((x, y, size * 0.6), (size, size, size * 0.75), colour, rng, detail=0))


def tree(parts: list[Mesh], x: float, y: float, rng: np.random.Generator, scale: float = 1.0) -> None:
    """A trunk and a crown of three rough balls; one in eight is a conifer."""
    height = scale * rng.uniform(5.5, 8.0)
    colour = LEAF[int(rng.integers(len(LEAF)))] * rng.uniform(0.8, 1.15)
    if rng.random() < 0.12:
        parts.append(pillar(0.16 * scale, height * 0.3, (x, y, 0), _BARK, 5))
        parts += [
            _rough(
                pillar(
                    scale * 1.6 * (1 - 0.27 * i),
                    height * 0.42,
                    (x, y, height * (0.18 + 0.24 * i)),
                    LEAF[2] * 0.65,
                    7,
                    0.05,
                ),
                rng,
                LEAVES,
            )
            for i in range(3)
        ]
        return
    trunk = height * rng.uniform(0.36, 0.46)
    parts.append(pillar(0.17 * scale, trunk + 0.8, (x, y, 0), _BARK, 5, 0.7))
    radius = scale * rng.uniform(1.5, 2.1)
    parts.append(_crown((x, y, trunk + radius * 0.95), (radius, radius, radius * 1.1), colour, rng))
    for _ in range(2):
        angle = rng.uniform(0, 2 * np.pi)
        offset = radius * rng.uniform(0.5, 0.75)
        small = radius * rng.uniform(0.55, 0.75)
        centre = (x + offset * np.cos(angle), y + offset * np.sin(angle), trunk + radius * rng.uniform(0.5, 1.4))
        parts.append(_crown(centre, (small, small, small), colour * rng.uniform(0.85, 1.15), rng, detail=0))


def _crown(
    centre: tuple[float, ...], radii: tuple[float, ...], colour: Float, rng: np.random.Generator, detail: int = 1
) -> Mesh:
    return _rough(ball(radii, centre, colour, LEAVES, detail), rng, LEAVES)


def _rough(crown: Mesh, rng: np.random.Generator, kind: int) -> Mesh:
    """Leaves: corners shifted, each by its own place so that faces stay joined, and every face of its own shade."""
    crown.kinds[:] = kind
    points = crown.corners.reshape(-1, 3)
    middle = points.mean(0)
    phases = rng.uniform(0, 6.28, 3)
    wobble = np.sin(points * 3.1 + phases).prod(1) * 0.22 + np.sin(points @ [1.9, 2.3, 1.4] + phases[0]) * 0.1
    points[:] = middle + (points - middle) * (1 + wobble[:, None])
    crown.colours[:] *= rng.uniform(0.85, 1.12, (len(crown.colours), 1))
    return crown
