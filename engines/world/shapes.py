"""What whatever moves is made of: its drawings, its box, and the colours that people and vehicles come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from engines.world import mesh
from engines.world.mesh import Mesh, linear, polygon
from perception.messages import CLASSES, Float, Float32

PHASES: Final = 8
"""Drawings of one stride, or of one turn of the pedals."""
TYRE: Final = linear("#1d1d1f")
HUB: Final = linear("#8d9196")
DARK: Final = linear("#26272a")
WHITE_LAMP: Final = linear("#e8e8e2")
RED_LAMP: Final = linear("#8c1614")
PLATE: Final = linear("#dcdcd6")
PAINTS: Final = tuple(
    linear(c)
    for c in ("#d9dadb", "#c4c6c8", "#8b9095", "#55595e", "#2b2d31", "#1c1d20", "#26374f", "#345a86", "#6d1f22",
              "#9c2a26", "#3f5a46", "#7b6a55", "#c9bfa8", "#5d7c8c", "#b35a2a", "#d3b54a")
)  # fmt: skip
CLOTHES: Final = tuple(
    linear(c)
    for c in ("#22252b", "#34404f", "#4c5a6b", "#6e5a48", "#8a7a66", "#a9a294", "#7e2f33", "#a84c3c", "#c9b26a",
              "#3f6257", "#58764f", "#2f4f7a", "#6f86a6", "#d8d6cf", "#b88a8c", "#5a4668", "#c06a32")
)  # fmt: skip
TROUSERS: Final = tuple(linear(c) for c in ("#1e2126", "#2b3442", "#3a4a63", "#4a4640", "#7b7060", "#2a2a2c"))
SKINS: Final = tuple(linear(c) for c in ("#e2b899", "#d3a07c", "#b07b57", "#8a5a3c", "#5e3d2b"))
HAIRS: Final = tuple(linear(c) for c in ("#1b1714", "#2e221a", "#4f3824", "#7d6040", "#a98d62", "#8b8a88"))


@dataclass(frozen=True, slots=True)
class Shape:
    """One object's looks.

    `label` indexes CLASSES; `size` (3,) is length, width, height of its box about (0, 0, height / 2). `meshes` are the
    drawings of its movement: one, or `PHASES` over a stride of `stride_m`; `middles` are those of their faces.
    """

    label: int
    size: Float
    meshes: tuple[Mesh, ...]
    middles: tuple[Float32, ...] = ()
    stride_m: float = 1.0


class Look:
    """A shape that is made when it is first looked at: most of a town never is."""

    def __init__(self, make: Callable[[np.random.Generator], Shape], rng: np.random.Generator) -> None:
        self._make = make
        self._rng = rng

    @cached_property
    def shape(self) -> Shape:
        """The finished shape."""
        return self._make(self._rng)


def centred(name: str, meshes: list[Mesh], stride_m: float = 1.0, width: float | None = None) -> Shape:
    """Centre the meshes on their common box; mirrors do not count for the width, if one is given."""
    points = np.concatenate([m.corners.reshape(-1, 3) for m in meshes])
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    size = high - low
    if width is not None:
        size[1] = width
    middle = (low + high) / 2
    size[2] = high[2]
    drawings = tuple(m.moved(-middle[0], -middle[1]) for m in meshes)
    return Shape(CLASSES.index(name), size, drawings, tuple(mesh.face_middles(m.corners) for m in drawings), stride_m)


def pick(rng: np.random.Generator, colours: tuple[Float, ...]) -> Float:
    """One of some colours, a little lighter or darker."""
    return colours[int(rng.integers(len(colours)))] * rng.uniform(0.85, 1.15)


def panel(x: float, y: tuple[float, float], z: tuple[float, float], colour: Float, kind: int) -> Mesh:
    """A rectangle across the vehicle that faces forward where x > 0, else backward."""
    corners = [(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])]
    return polygon(corners if x > 0 else corners[::-1], colour, kind)
