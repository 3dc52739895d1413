"""Low-poly meshes: flat triangles with a material each, and the few solids all shapes are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from perception.messages import Float, Float32, Int32

Vector = Sequence[float] | Float

# What a triangle is, beyond its colour: lamps are lit by their owner's state, the rest is for the shader.
PLAIN, GLASS, PAINT, LEAVES, HEADLAMP, TAIL, BRAKE, LEFT, RIGHT, LIT, RED, AMBER, GREEN = range(13)
FACADE: Final = 32
"""Kinds from here on are facades: FACADE + style."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles: `corners` (T, 3, 3) in metres, counter-clockwise from outside.

    `colours` (T, 3) are linear albedos in BGR, `kinds` (T,) one of the constants above. `textures` (T, 5) give facades
    their window cells: column = x * t0 + y * t1 + t2, storey = z * t3 + t4.
    """

    corners: Float32
    colours: Float32
    kinds: Int32
    textures: Float32

    def moved(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Mesh:
        """Turned about z, then shifted; facades must not be moved any more."""
        c, s = np.cos(yaw), np.sin(yaw)
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        moved = self.corners @ rotation + np.array([x, y, z])
        return Mesh(moved.astype(np.float32), self.colours, self.kinds, self.textures)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All triangles in one mesh."""
    return Mesh(
        np.concatenate([m.corners for m in meshes]),
        np.concatenate([m.colours for m in meshes]),
        np.concatenate([m.kinds for m in meshes]),
        np.concatenate([m.textures for m in meshes]),
    )


def from_triangles(corners: Float | Float32, colour: Vector, kind: int = PLAIN) -> Mesh:
    """A mesh of one material."""
    triangles = np.asarray(corners, np.float32).reshape(-1, 3, 3)
    count = len(triangles)
    return Mesh(
        triangles,
        np.tile(np.asarray(colour, np.float32), (count, 1)),
        np.full(count, kind, np.int32),
        np.zeros((count, 5), np.float32),
    )


def polygon(points: Sequence[Vector] | Float, colour: Vector, kind: int = PLAIN) -> Mesh:
    """A convex polygon, counter-clockwise from the side that shows."""
    p = np.asarray(points, np.float32)
    fan = np.stack([np.repeat(p[:1], len(p) - 2, 0), p[1:-1], p[2:]], axis=1)
    return from_triangles(fan, colour, kind)


def box(
    size: Vector,
    centre: Vector,
    colour: Vector,
    kind: int = PLAIN,
    taper: Vector = (1.0, 1.0),
    bottom: bool = False,  # noqa: FBT001, FBT002 (a drawing argument)
) -> Mesh:
    """An upright box by its size and centre; its top is `taper` times as long and wide. Undersides are rarely seen."""
    half = np.asarray(size) / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    low = np.c_[signs * half[:2], np.full(4, -half[2])] + centre
    high = np.c_[signs * half[:2] * taper, np.full(4, half[2])] + centre
    return hull_of_rings([low, high], colour, kind, cap_bottom=bottom)


def hull_of_rings(
    rings: Sequence[Float],
    colour: Vector,
    kind: int = PLAIN,
    *,
    cap_bottom: bool = False,
    cap_top: bool = True,
) -> Mesh:
    """The skin over rings (n, 3) of equally many points; convex."""
    triangles = []
    for a, b in pairwise(rings):
        a2, b2 = np.roll(a, -1, 0), np.roll(b, -1, 0)
        triangles += [np.stack([a, a2, b2], 1), np.stack([a, b2, b], 1)]
    for ring, wanted in ((np.asarray(rings[0])[::-1], cap_bottom), (np.asarray(rings[-1]), cap_top)):
        if wanted:
            triangles.append(np.stack([np.repeat(ring[:1], len(ring) - 2, 0), ring[1:-1], ring[2:]], 1))
    return from_triangles(_outward(np.concatenate(triangles)), colour, kind)


def _outward(triangles: Float) -> Float:
    """The triangles of a convex solid, all wound to be seen from outside."""
    out = triangles.mean(1) - triangles.reshape(-1, 3).mean(0)
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    # The triple product, written out: np.cross takes ten times as long on so few.
    volume = out[:, 0] * (a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1])
    volume += out[:, 1] * (a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2])
    volume += out[:, 2] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    inward = volume < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles


def side_profile(profile: Sequence[Sequence[float]], width: float, colour: Vector, kind: int = PLAIN) -> Mesh:
    """A convex outline (x, z) pulled out to `width` about y = 0."""
    p = np.asarray(profile, float)
    right = np.c_[p[:, 0], np.full(len(p), -width / 2), p[:, 1]]
    left = right * [1, -1, 1]
    return hull_of_rings([left, right], colour, kind, cap_bottom=True)


def wheel(radius: float, thickness: float, centre: Vector, colour: Vector, sides: int = 8) -> Mesh:
    """A cylinder about the y axis, with both ends."""
    angle = np.arange(sides) * 2 * np.pi / sides
    right = np.c_[radius * np.cos(angle), np.full(sides, -thickness / 2), radius * np.sin(angle)] + centre
    return hull_of_rings([right + [0, thickness, 0], right], colour, cap_bottom=True)


def pillar(radius: float, height: float, base: Vector, colour: Vector, sides: int = 6, top: float = 1.0) -> Mesh:
    """An upright prism that narrows to `top` times its radius."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.c_[radius * np.cos(angle), radius * np.sin(angle), np.zeros(sides)]
    return hull_of_rings([ring + base, ring * [top, top, 1] + base + [0, 0, height]], colour)


def limb(start: Vector, end: Vector, width: float, colour: Vector, sides: int = 4) -> Mesh:
    """A straight bar from point to point: arms, legs, tubes."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    along = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
    helper = np.array([0.0, 1.0, 0.0]) if abs(along[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    u = np.cross(helper, along)
    u /= np.linalg.norm(u)
    v = np.cross(along, u)
    angle = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = (np.outer(np.cos(angle), u) + np.outer(np.sin(angle), v)) * width / 2
    return hull_of_rings([a + ring, b + ring], colour, cap_bottom=True)


def _icosahedron() -> Float:
    g = (1 + 5**0.5) / 2
    v = np.array([[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0], [0, -1, g], [0, 1, g], [0, -1, -g], [0, 1, -g],
                  [g, 0, -1], [g, 0, 1], [-g, 0, -1], [-g, 0, 1]])  # fmt: skip
    faces = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6],
             [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10],
             [8, 6, 7], [9, 8, 1]]  # fmt: skip
    return np.asarray(v[faces] / np.linalg.norm(v[0]))


def _subdivided(triangles: Float) -> Float:
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, bc, ca = a + b, b + c, c + a
    ab, bc, ca = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (ab, bc, ca))
    return np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])


_BALLS: Final = (_outward(_icosahedron()), _outward(_subdivided(_icosahedron())))


def ball(radii: Vector, centre: Vector, colour: Vector, kind: int = PLAIN, detail: int = 0) -> Mesh:
    """An ellipsoid of 20 or 80 triangles."""
    return from_triangles(_BALLS[detail] * np.asarray(radii) + centre, colour, kind)


def linear(colour: str) -> Float:
    """A colour given as sRGB ``#rrggbb`` as linear BGR in [0, 1] (IEC 61966-2-1)."""
    value = np.array([int(colour[i : i + 2], 16) for i in (5, 3, 1)]) / 255.0
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4))


def face_middles(corners: Float32) -> Float32:
    """For each triangle (T, 3, 3) the middle (T, 3) of all triangles in its plane, so that a pane mirrors as one."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = np.cross(u, v)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    offsets = np.einsum("ij,ij->i", normals, corners[:, 0])
    keys = np.round(np.c_[normals * 20, offsets * 20])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = np.bincount(group)
    middles = [np.bincount(group, corners[:, :, k].mean(1)) / count for k in range(3)]
    return np.stack(middles, axis=1).astype(np.float32)[group]
