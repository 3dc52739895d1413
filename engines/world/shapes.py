"""The shapes of whatever moves: bodies of a few hundred triangles, heading along x, standing on z = 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np

from engines.world import mesh
from engines.world.mesh import (
    BRAKE,
    GLASS,
    HEADLAMP,
    LEFT,
    LIT,
    PAINT,
    RIGHT,
    TAIL,
    Mesh,
    ball,
    box,
    hull_of_rings,
    join,
    limb,
    linear,
    polygon,
    side_profile,
    wheel,
)
from perception.messages import CLASSES, Float, Float32

PHASES: Final = 8
"""Drawings of one stride, or of one turn of the pedals."""

_TYRE: Final = linear("#1d1d1f")
_HUB: Final = linear("#8d9196")
_DARK: Final = linear("#26272a")
_GLASS: Final = linear("#1b2228")
_WHITE_LAMP: Final = linear("#e8e8e2")
_RED_LAMP: Final = linear("#8c1614")
_AMBER_LAMP: Final = linear("#b8681c")
_PLATE: Final = linear("#dcdcd6")

_PAINTS: Final = tuple(
    linear(c)
    for c in ("#d9dadb", "#c4c6c8", "#8b9095", "#55595e", "#2b2d31", "#1c1d20", "#26374f", "#345a86", "#6d1f22",
              "#9c2a26", "#3f5a46", "#7b6a55", "#c9bfa8", "#5d7c8c", "#b35a2a", "#d3b54a")
)  # fmt: skip
_PAINT_ODDS: Final = np.array([14, 12, 11, 10, 10, 9, 5, 6, 4, 5, 2, 3, 3, 3, 2, 1]) / 100
_BUS_PAINTS: Final = tuple(linear(c) for c in ("#b53a2e", "#e0dccb", "#2f6a4f", "#35608f", "#d7a83a", "#c9ced1"))
_LOAD_PAINTS: Final = tuple(
    linear(c) for c in ("#e3e3df", "#d2d5d6", "#8aa0b5", "#3e5d7e", "#8a3b33", "#5d7357", "#c79a45")
)
_CLOTHES: Final = tuple(
    linear(c)
    for c in ("#22252b", "#34404f", "#4c5a6b", "#6e5a48", "#8a7a66", "#a9a294", "#7e2f33", "#a84c3c", "#c9b26a",
              "#3f6257", "#58764f", "#2f4f7a", "#6f86a6", "#d8d6cf", "#b88a8c", "#5a4668", "#c06a32")
)  # fmt: skip
_TROUSERS: Final = tuple(linear(c) for c in ("#1e2126", "#2b3442", "#3a4a63", "#4a4640", "#7b7060", "#2a2a2c"))
_SKINS: Final = tuple(linear(c) for c in ("#e2b899", "#d3a07c", "#b07b57", "#8a5a3c", "#5e3d2b"))
_HAIRS: Final = tuple(linear(c) for c in ("#1b1714", "#2e221a", "#4f3824", "#7d6040", "#a98d62", "#8b8a88"))


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


def _shape(name: str, meshes: list[Mesh], stride_m: float = 1.0, width: float | None = None) -> Shape:
    """Centre the meshes on their common box; mirrors do not count for the width, if one is given."""
    points = np.concatenate([m.corners.reshape(-1, 3) for m in meshes])
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    size = high - low
    if width is not None:
        size[1] = width
    middle = (low + high) / 2
    size[2] = high[2]
    centred = tuple(m.moved(-middle[0], -middle[1]) for m in meshes)
    return Shape(CLASSES.index(name), size, centred, tuple(mesh.face_middles(m.corners) for m in centred), stride_m)


def _pick(rng: np.random.Generator, colours: tuple[Float, ...]) -> Float:
    return colours[int(rng.integers(len(colours)))] * rng.uniform(0.85, 1.15)


def _panel(x: float, y: tuple[float, float], z: tuple[float, float], colour: Float, kind: int) -> Mesh:
    """A rectangle across the vehicle that faces forward where x > 0, else backward."""
    corners = [(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])]
    return polygon(corners if x > 0 else corners[::-1], colour, kind)


def _side(y: float, x: tuple[float, float], z: tuple[float, float], colour: Float, kind: int) -> Mesh:
    """A rectangle along the vehicle that faces to the side of y."""
    corners = [(x[1], y, z[0]), (x[0], y, z[0]), (x[0], y, z[1]), (x[1], y, z[1])]
    return polygon(corners if y > 0 else corners[::-1], colour, kind)


def _both_sides(y: float, x: tuple[float, float], z: tuple[float, float], colour: Float, kind: int) -> Mesh:
    return join([_side(y, x, z, colour, kind), _side(-y, x, z, colour, kind)])


def _wheels(axles: tuple[float, ...], half_width: float, radius: float, thickness: float = 0.24) -> Mesh:
    parts = []
    for x in axles:
        for sign in (-1, 1):
            y = sign * (half_width - thickness / 2 + 0.02)
            parts.append(wheel(radius, thickness, (x, y, radius), _TYRE))
            angle = np.arange(6) * np.pi / 3
            face = np.c_[
                x - sign * radius * 0.62 * np.cos(angle),
                np.full(6, y + sign * (thickness / 2 + 0.012)),
                radius + radius * 0.62 * np.sin(angle),
            ]
            parts.append(polygon(face, _HUB, PAINT))
            angle = np.linspace(0, np.pi, 7)
            arch = np.c_[
                x - sign * radius * 1.22 * np.cos(angle),
                np.full(7, sign * (half_width + 0.004)),
                radius + radius * 1.22 * np.sin(angle),
            ]
            parts.append(polygon(arch[::-1] if False else arch, _DARK * 0.5))
    return join(parts)


def _lamps(front: float, back: float, half_width: float, z: float, size: tuple[float, float] = (0.36, 0.14)) -> Mesh:
    wide, high = size
    inner, outer = half_width - 0.08 - wide, half_width - 0.08
    parts = [
        _panel(-back, (-0.26, 0.26), (z - 0.2, z - 0.09), _PLATE, mesh.PLAIN),
        _panel(front, (-0.26, 0.26), (z - 0.3, z - 0.19), _PLATE, mesh.PLAIN),
    ]
    for sign, turn in ((1, LEFT), (-1, RIGHT)):
        y = (inner, outer) if sign > 0 else (-outer, -inner)
        tip = (outer - 0.1, outer + 0.02) if sign > 0 else (-outer - 0.02, -outer + 0.1)
        parts += [
            _panel(front, y, (z - high / 2, z + high / 2), _WHITE_LAMP, HEADLAMP),
            _panel(front, tip, (z - high, z - high / 2), _AMBER_LAMP, turn),
            _panel(-back, y, (z + 0.03, z + 0.03 + high), _RED_LAMP, BRAKE),
            _panel(-back, y, (z - 0.07, z + 0.03), _RED_LAMP, TAIL),
            _panel(-back, tip, (z - 0.15, z - 0.07), _AMBER_LAMP, turn),
        ]
    return join(parts)


def car(rng: np.random.Generator) -> Shape:
    """A saloon, hatchback, estate, SUV, pickup or van."""
    style = rng.choice(["saloon", "hatchback", "estate", "suv", "van", "pickup"], p=[0.24, 0.28, 0.12, 0.2, 0.12, 0.04])
    # length, width, height, belt line, nose height; then windscreen's foot, roof from, roof to, rear window's foot, in
    # parts of half the length.
    length, width, height, belt, nose, foot, roof_front, roof_rear, rear = {
        "saloon": (4.65, 1.82, 1.45, 0.93, 0.70, 0.40, 0.06, -0.44, -0.76),
        "hatchback": (4.10, 1.78, 1.50, 0.95, 0.72, 0.48, 0.14, -0.72, -0.97),
        "estate": (4.75, 1.84, 1.50, 0.94, 0.72, 0.44, 0.10, -0.80, -0.97),
        "suv": (4.55, 1.90, 1.70, 1.08, 0.88, 0.47, 0.16, -0.78, -0.97),
        "van": (5.30, 2.02, 2.20, 1.20, 0.98, 0.66, 0.44, -0.97, -0.995),
        "pickup": (5.20, 1.92, 1.78, 1.10, 0.95, 0.46, 0.20, -0.16, -0.24),
    }[str(style)]
    length *= rng.uniform(0.94, 1.06)
    height *= rng.uniform(0.97, 1.05)
    half, side = length / 2, width / 2
    paint = _PAINTS[int(rng.choice(len(_PAINTS), p=_PAINT_ODDS))] * rng.uniform(0.9, 1.1)
    if style == "van" and rng.random() < 0.6:
        paint = linear("#dcdddb") * rng.uniform(0.8, 1.0)
    body = side_profile(
        [(-half, 0.42), (-half + 0.1, 0.24), (half - 0.12, 0.24), (half, 0.38), (half - 0.03, nose - 0.12),
         (half - 0.16, nose), (foot * half, belt), (-half + 0.06, belt), (-half, belt - 0.12)],
        width, paint, PAINT,
    )  # fmt: skip
    low = [
        (foot * half, side - 0.03),
        (foot * half, -side + 0.03),
        (rear * half, -side + 0.03),
        (rear * half, side - 0.03),
    ]
    inset = 0.12 if style == "van" else 0.22
    high = [(roof_front * half, side - inset), (roof_front * half, -side + inset),
            (roof_rear * half, -side + inset), (roof_rear * half, side - inset)]  # fmt: skip
    lower = np.array([(x, y, belt - 0.01) for x, y in low])
    upper = np.array([(x, y, height) for x, y in high])
    glass_top = upper * [1, 1, 0] + [0, 0, height - 0.05]
    cabin = hull_of_rings([lower, glass_top], _GLASS, GLASS, cap_top=False)
    grown = (glass_top - glass_top.mean(0)) * [1.02, 1.03, 1] + glass_top.mean(0)
    roof = hull_of_rings([grown, upper], paint, PAINT)
    parts = [body, cabin, roof, _wheels((half * 0.62, -half * 0.6), side, 0.34 if height > 1.6 else 0.32)]
    parts += [limb(a, b, 0.09, paint) for a, b in zip(lower * [0.995, 1.0, 1], grown, strict=True)]
    if style == "van":
        x = (rear * half + 0.02, 0.16 * half)
        parts += [_both_sides_of_cabin(lower, grown, x, paint)]
    else:
        post = (roof_front + roof_rear) / 2 * half
        for sign in (-1, 1):
            foot_of_post = (post + 0.05, sign * (side - 0.02), belt)
            parts.append(limb(foot_of_post, (post, sign * (side - inset + 0.01), height - 0.05), 0.1, paint * 0.6))
    parts += [
        _both_sides(side + 0.008, (-half * 0.42, half * 0.44), (0.24, 0.36), _DARK, mesh.PLAIN),
        _panel(half + 0.006, (-side * 0.62, side * 0.62), (0.36, nose - 0.18), _DARK, mesh.PLAIN),
        _panel(-half - 0.006, (-side + 0.1, side - 0.1), (0.3, 0.44), _DARK, mesh.PLAIN),
        _lamps(half + 0.012, half + 0.012, side, nose - 0.1),
    ]
    for sign in (-1, 1):
        parts.append(
            box((0.12, 0.16, 0.12), (foot * half - 0.16, sign * (side + 0.08), belt + 0.06), paint * 0.8, PAINT)
        )
    return _shape("car", [join(parts)], width=width)


def _both_sides_of_cabin(lower: Float, upper: Float, x: tuple[float, float], paint: Float) -> Mesh:
    """Metal instead of glass on a van's sides, between two x, and over its back."""
    parts = []
    for sign in (-1, 1):
        y_low, y_high = sign * (abs(lower[0, 1]) + 0.012), sign * (abs(upper[0, 1]) + 0.012)
        corners = [
            (x[0], y_low, lower[0, 2]),
            (x[1], y_low, lower[0, 2]),
            (x[1], y_high, upper[0, 2]),
            (x[0], y_high, upper[0, 2]),
        ]
        parts.append(polygon(corners if sign < 0 else corners[::-1], paint, PAINT))
    return join(parts)


def truck(rng: np.random.Generator) -> Shape:
    """A rigid lorry: a cab, and a box, a curtain, a tipper or a tank behind it."""
    length = rng.uniform(6.4, 9.6)
    width, half = 2.46, length / 2
    side = width / 2
    height = rng.uniform(2.9, 3.5)
    cab_height = min(2.75, height)
    cab_back = half - 2.05
    paint = _pick(rng, _PAINTS[:14])
    load = _pick(rng, _LOAD_PAINTS)
    cab = side_profile(
        [(cab_back, 0.55), (half - 0.05, 0.5), (half, 0.75), (half - 0.02, 1.45), (half - 0.42, cab_height),
         (cab_back + 0.05, cab_height), (cab_back, cab_height - 0.1)],
        width - 0.1, paint, PAINT,
    )  # fmt: skip
    y = side - 0.16
    slope = 0.4 / (cab_height - 1.45)
    windscreen = polygon(
        [(half - 0.03, -y, 1.5), (half - 0.03, y, 1.5), (half - 0.03 - slope * (cab_height - 1.8), y, cab_height - 0.3),
         (half - 0.03 - slope * (cab_height - 1.8), -y, cab_height - 0.3)], _GLASS, GLASS,
    ).moved(0.03, 0)  # fmt: skip
    parts = [
        cab,
        windscreen,
        _both_sides(side - 0.042, (half - 1.35, half - 0.42), (1.5, cab_height - 0.35), _GLASS, GLASS),
        box((length - 0.5, width * 0.5, 0.24), (-0.2, 0, 0.72), _DARK),
        _panel(half + 0.01, (-side * 0.7, side * 0.7), (0.86, 1.32), _DARK, mesh.PLAIN),
        _lamps(half + 0.015, half + 0.012, side - 0.04, 0.74, (0.34, 0.18)),
        _wheels(
            (half - 1.0, -half + 1.5, -half + 2.65) if length > 8 else (half - 1.0, -half + 1.5), side - 0.02, 0.48, 0.3
        ),
        box((0.08, width - 0.2, 0.14), (-half + 0.08, 0, 0.55), _DARK),
    ]
    load_length = cab_back - 0.2 + half
    middle = -half + load_length / 2
    kind = rng.choice(["box", "curtain", "tipper", "tank"], p=[0.5, 0.22, 0.18, 0.1])
    if kind == "tank":
        angle = np.arange(10) * np.pi / 5
        ring = np.c_[np.zeros(10), 1.15 * np.cos(angle), 1.95 + 0.85 * np.sin(angle)]
        parts.append(
            hull_of_rings(
                [ring + [-half, 0, 0], ring + [cab_back - 0.3, 0, 0]], linear("#c9cdd0"), PAINT, cap_bottom=True
            )
        )
    elif kind == "tipper":
        parts.append(box((load_length, width, 1.15), (middle, 0, 1.5), load * 0.8, PAINT, (1.02, 1.0)))
        ribs = np.arange(-half + 0.4, cab_back - 0.4, 0.7)
        parts += [_both_sides(side + 0.03, (x, x + 0.1), (0.95, 2.05), load * 0.55, mesh.PLAIN) for x in ribs]
        parts.append(
            box((load_length * 0.8, width * 0.8, 0.3), (middle, 0, 2.15), linear("#7a6b58"), mesh.PLAIN, (0.6, 0.5))
        )
    else:
        parts.append(box((load_length, width, height - 0.88), (middle, 0, (height + 0.88) / 2), load, mesh.PLAIN))
        parts.append(_panel(-half - 0.01, (-0.03, 0.03), (0.95, height - 0.1), load * 0.5, mesh.PLAIN))
        if kind == "curtain":
            folds = np.arange(-half + 0.3, cab_back - 0.4, 0.55)
            parts += [
                _both_sides(side + 0.012, (x, x + 0.16), (0.95, height - 0.12), load * 0.8, mesh.PLAIN) for x in folds
            ]
        else:
            band = _pick(rng, _BUS_PAINTS)
            z = height * rng.uniform(0.5, 0.65)
            parts.append(_both_sides(side + 0.012, (-half + 0.4, cab_back - 0.5), (z, z + 0.5), band, mesh.PLAIN))
    return _shape("truck", [join(parts)])


def bus(rng: np.random.Generator) -> Shape:
    """A city bus: a long box with a band of windows, doors on the right, a lit destination."""
    length, width, height = rng.uniform(10.2, 12.2), 2.52, rng.uniform(2.95, 3.15)
    half, side = length / 2, width / 2
    paint, second = _pick(rng, _BUS_PAINTS), _pick(rng, _BUS_PAINTS)
    shell = side_profile(
        [(-half, 0.4), (-half + 0.1, 0.28), (half - 0.1, 0.28), (half, 0.4), (half, 1.0), (half - 0.18, height - 0.12),
         (half - 0.35, height), (-half + 0.15, height), (-half, height - 0.15)],
        width, paint, PAINT,
    )  # fmt: skip
    y = side - 0.12
    lean = 0.18 / (height - 1.12)
    front = polygon(
        [(half + 0.012, -y, 1.0), (half + 0.012, y, 1.0), (half - lean * (height - 1.5), y, height - 0.5),
         (half - lean * (height - 1.5), -y, height - 0.5)], _GLASS, GLASS,
    )  # fmt: skip
    sign_z = (height - 0.44, height - 0.16)
    low, high = (half + 0.012 - lean * (z - 1.0) for z in sign_z)
    sign = polygon(
        [(low, -0.7, sign_z[0]), (low, 0.7, sign_z[0]), (high, 0.7, sign_z[1]), (high, -0.7, sign_z[1])],
        linear("#d58a2a"), LIT,
    )  # fmt: skip
    parts = [
        shell,
        front,
        sign,
        _panel(-half - 0.012, (-y + 0.15, y - 0.15), (1.55, 2.5), _GLASS, GLASS),
        _both_sides(side + 0.008, (-half + 0.1, half - 0.1), (0.28, 0.5), _DARK, mesh.PLAIN),
        _both_sides(side + 0.01, (-half + 0.2, half - 0.3), (0.62, 0.84), second, PAINT),
        _lamps(half + 0.02, half + 0.02, side, 0.72, (0.4, 0.2)),
        _wheels((half - 2.6, -half + 3.2), side, 0.48, 0.3),
        box((1.8, 1.6, 0.22), (-half * 0.35, 0, height + 0.1), paint * 0.85),
        box((1.4, 1.5, 0.2), (half * 0.4, 0, height + 0.1), paint * 0.85),
    ]
    panes = np.linspace(-half + 0.35, half - 0.5, 8)
    parts += [
        _both_sides(side + 0.01, (a + 0.05, b - 0.05), (1.15, height - 0.55), _GLASS, GLASS) for a, b in pairwise(panes)
    ]
    for x in (half - 1.75, -0.6):
        parts += [
            _side(-side - 0.02, (x + i * 0.62, x + i * 0.62 + 0.56), (0.42, height - 0.6), _GLASS * 1.4, GLASS)
            for i in (0, 1)
        ]
    return _shape("bus", [join(parts)])


def pedestrian(rng: np.random.Generator, *, umbrellas: bool = False) -> Shape:
    """A man, woman or child, perhaps with a bag; with an umbrella, where it rains."""
    child = rng.random() < 0.1
    height = rng.uniform(1.1, 1.45) if child else rng.normal(1.72, 0.08)
    height = float(np.clip(height, 1.1, 1.95))
    stout = rng.uniform(0.88, 1.18)
    top, trousers, skin, hair = (_pick(rng, c) for c in (_CLOTHES, _TROUSERS, _SKINS, _HAIRS))
    shoes = _DARK * rng.uniform(0.4, 2.0)
    coat, long_hair, bag = rng.random() < 0.3, rng.random() < 0.4, rng.random()
    umbrella = umbrellas and rng.random() < 0.55
    umbrella_colour = _pick(rng, _CLOTHES)
    bag_colour = _pick(rng, _CLOTHES)

    def drawing(phase: int) -> Mesh:
        swing = np.sin(2 * np.pi * phase / PHASES)
        lift = np.cos(2 * np.pi * phase / PHASES)
        hip, shoulder, chin = 0.5 * height, 0.815 * height, 0.87 * height
        parts = []
        for sign, turn, raised in ((1, swing, max(lift, 0.0)), (-1, -swing, max(-lift, 0.0))):
            y = sign * 0.09 * stout
            foot_x, foot_z = 0.27 * height * 0.72 * turn, 0.05 + 0.06 * raised
            knee = (foot_x * 0.5 + 0.05 + 0.06 * raised, y, hip * 0.53)
            parts += [
                limb((0, y, hip + 0.02), knee, 0.17 * stout, top if coat else trousers),
                limb(knee, (foot_x, y, foot_z + 0.04), 0.13 * stout, trousers),
                box((0.25, 0.1, 0.09), (foot_x + 0.05, y, foot_z), shoes),
            ]
            arm_x = -0.16 * height * turn
            elbow = (arm_x * 0.5 - 0.03, sign * 0.25 * stout, shoulder - 0.165 * height)
            hand = (arm_x + 0.06, sign * 0.25 * stout, shoulder - 0.30 * height)
            if umbrella and sign > 0:
                elbow, hand = (0.1, 0.24 * stout, shoulder - 0.16 * height), (0.24, 0.18, shoulder - 0.02)
            parts += [
                limb((0, sign * 0.2 * stout, shoulder), elbow, 0.115, top),
                limb(elbow, hand, 0.09, top),
                box((0.07, 0.06, 0.1), (hand[0], hand[1], hand[2] - 0.05), skin),
            ]
        bottom = hip - (0.13 * height if coat else 0.02)
        parts += [
            hull_of_rings(
                [_oval(0.13 * stout, 0.185 * stout, bottom), _oval(0.125 * stout, 0.17 * stout, hip + 0.12 * height),
                 _oval(0.13 * stout, 0.225 * stout, shoulder - 0.02), _oval(0.06, 0.09, shoulder + 0.04)], top),
            limb((0.01, 0, shoulder), (0.02, 0, chin + 0.02), 0.1, skin),
            ball((0.1, 0.08, 0.125), (0.03, 0, chin + 0.105), skin),
            ball((0.108, 0.092, 0.12), (0.005, 0, chin + 0.135), hair),
        ]  # fmt: skip
        if long_hair:
            parts.append(box((0.07, 0.15, 0.24), (-0.07, 0, chin + 0.02), hair))
        if bag < 0.25:
            parts.append(box((0.15, 0.29, 0.4), (-0.2, 0, shoulder - 0.22), bag_colour, mesh.PLAIN, (0.8, 0.8)))
        elif bag < 0.42:
            parts.append(box((0.28, 0.1, 0.24), (0.02, -0.33 * stout, hip - 0.02), bag_colour))
        if umbrella:
            tip = 0.18 + height
            angle = np.arange(8) * np.pi / 4
            rim = np.c_[0.16 + 0.52 * np.cos(angle), 0.14 + 0.52 * np.sin(angle), np.full(8, tip)]
            crown = rim * [0.3, 0.3, 1] + [0.112, 0.098, 0.2]
            parts += [limb((0.24, 0.18, shoulder - 0.1), (0.16, 0.14, tip + 0.2), 0.03, _DARK),
                      hull_of_rings([rim, crown], umbrella_colour, cap_bottom=True)]  # fmt: skip
        return join(parts)

    return _shape("pedestrian", [drawing(i) for i in range(PHASES)], stride_m=0.8 * height)


def _oval(along: float, across: float, z: float) -> Float:
    angle = np.arange(6) * np.pi / 3
    return np.asarray(np.c_[along * np.cos(angle), across * np.sin(angle), np.full(6, z)])


def _rim(x: float, radius: float, width: float) -> Mesh:
    """A bicycle wheel: a ring that is seen from both sides, and a strip that is seen from the front."""
    angle = np.arange(10) * np.pi / 5
    outer = np.c_[x + radius * np.cos(angle), np.zeros(10), radius + radius * np.sin(angle)]
    inner = np.c_[x + (radius - width) * np.cos(angle), np.zeros(10), radius + (radius - width) * np.sin(angle)]
    quads = np.stack([outer, np.roll(outer, -1, 0), np.roll(inner, -1, 0), inner], 1)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    both = np.concatenate([triangles, triangles[:, ::-1]])
    strip = box((2 * radius, 0.035, 0.1), (x, 0, radius * 0.3), _TYRE)
    return (
        join(
            [
                mesh.from_triangles(both, _TYRE),
                box((2 * radius * 0.72, 0.035, 0.06), (x, 0, 2 * radius - 0.09), _TYRE),
                strip,
            ]
        )
        if width > 0.06
        else mesh.from_triangles(both, _TYRE)
    )


def _rider(
    hip: Float,
    hands: Float,
    feet: tuple[Float, Float],
    lean: float,
    colours: tuple[Float, ...],
    *,
    helmet_all_round: bool,
) -> Mesh:
    """Someone astride: torso leaning forward by `lean` metres, arms to the bars, legs to the pedals or pegs."""
    top, trousers, skin, helmet = colours
    chest = hip + np.array([lean, 0.0, 0.5])
    head = chest + np.array([0.1, 0.0, 0.24])
    shoes = _DARK
    across = np.array([0.0, 1.0, 0.0])
    parts = [
        limb(hip - [0, 0, 0.04], chest, 0.36, top, sides=6),
        limb(chest, head - [0, 0, 0.1], 0.11, skin),
        ball((0.1, 0.085, 0.12), head, skin),
        ball(
            (0.15, 0.125, 0.15) if helmet_all_round else (0.135, 0.1, 0.08),
            head + [0, 0, 0.02 if helmet_all_round else 0.07],
            helmet,
            PAINT,
        ),
    ]
    for sign, foot in zip((1, -1), feet, strict=True):
        hip_side = hip + across * sign * 0.11
        knee = (hip_side + foot) / 2 + np.array([0.17, sign * 0.04, 0.1])
        shoulder, hand = chest + across * sign * 0.18 - [0, 0, 0.05], hands + across * sign * 0.24
        elbow = (shoulder + hand) / 2 + np.array([-0.03, sign * 0.06, -0.06])
        parts += [
            limb(hip_side, knee, 0.15, trousers),
            limb(knee, foot, 0.11, trousers),
            box((0.25, 0.09, 0.08), foot + [0.05, 0, 0], shoes),
            limb(shoulder, elbow, 0.11, top),
            limb(elbow, hand, 0.085, top),
        ]
    return join(parts)


def bicycle(rng: np.random.Generator) -> Shape:
    """A bicycle and its rider."""
    frame = _pick(rng, _PAINTS)
    bright = rng.random() < 0.3
    colours = (
        linear("#c6d24a") if bright else _pick(rng, _CLOTHES),
        _pick(rng, _TROUSERS),
        _pick(rng, _SKINS),
        _pick(rng, _CLOTHES) if rng.random() < 0.65 else _pick(rng, _HAIRS),
    )
    lean = rng.uniform(0.12, 0.34)
    saddle = rng.uniform(0.9, 1.0)
    basket = rng.random() < 0.25
    radius = 0.34
    hub, bracket, head, seat = (
        np.array(p) for p in ((-0.52, 0, radius), (-0.05, 0, 0.3), (0.42, 0, 0.82), (-0.2, 0, saddle))
    )
    front = np.array([0.54, 0, radius])
    bars = np.array([0.4, 0, 1.03])

    def drawing(phase: int) -> Mesh:
        angle = 2 * np.pi * phase / PHASES
        pedals = tuple(
            bracket + np.array([0.17 * np.cos(angle + turn), sign * 0.13, 0.17 * np.sin(angle + turn)])
            for sign, turn in ((1, 0.0), (-1, np.pi))
        )
        tubes = (
            (hub, bracket),
            (hub, seat),
            (bracket, seat),
            (bracket, head),
            (seat * [1, 1, 0.88], head),
            (head, front),
            (head, bars),
        )
        parts = [_rim(float(hub[0]), radius, 0.055), _rim(float(front[0]), radius, 0.055)]
        parts += [limb(a, b, 0.05, frame, sides=3) for a, b in tubes]
        parts += [
            limb(bars - [0, 0.29, 0], bars + [0, 0.29, 0], 0.035, _DARK, sides=3),
            box((0.26, 0.15, 0.06), seat, _DARK),
            polygon([(-0.6, 0.04, 0.62), (-0.6, -0.04, 0.62), (-0.6, -0.04, 0.7), (-0.6, 0.04, 0.7)], _RED_LAMP, TAIL),
            polygon(
                [(0.52, -0.04, 0.86), (0.52, 0.04, 0.86), (0.52, 0.04, 0.94), (0.52, -0.04, 0.94)],
                _WHITE_LAMP,
                HEADLAMP,
            ),
            _rider(seat + [0, 0, 0.08], bars, pedals, lean, colours, helmet_all_round=False),
        ]
        if basket:
            parts.append(box((0.3, 0.36, 0.25), (0.6, 0, 0.95), linear("#6b5a40")))
        return join(parts)

    return _shape("bicycle", [drawing(i) for i in range(PHASES)], stride_m=3.2)


def motorcycle(rng: np.random.Generator) -> Shape:
    """A motorcycle or scooter and its rider."""
    scooter = rng.random() < 0.4
    paint = _pick(rng, _PAINTS)
    colours = (_pick(rng, _CLOTHES[:9]), _pick(rng, _TROUSERS), _pick(rng, _SKINS), _pick(rng, _PAINTS))
    radius = 0.25 if scooter else 0.31
    wheelbase = 1.28 if scooter else 1.42
    back, front = -wheelbase / 2, wheelbase / 2
    parts = [
        wheel(radius, 0.14, (back, 0, radius), _TYRE, sides=10),
        wheel(radius, 0.12, (front, 0, radius), _TYRE, sides=10),
        limb((front, 0, radius), (front - 0.28, 0, 1.0), 0.13, _HUB),
        limb((front - 0.3, -0.36, 1.04), (front - 0.3, 0.36, 1.04), 0.05, _DARK),
        box((0.16, 0.22, 0.2), (front - 0.16, 0, 0.92), paint, PAINT),
        _panel(front - 0.07, (-0.09, 0.09), (0.84, 1.0), _WHITE_LAMP, HEADLAMP),
        _panel(back - 0.27, (-0.09, 0.09), (0.7, 0.8), _RED_LAMP, BRAKE),
        _panel(back - 0.27, (-0.09, 0.09), (0.62, 0.69), _RED_LAMP, TAIL),
        _panel(back - 0.275, (-0.1, 0.1), (0.42, 0.56), _PLATE, mesh.PLAIN),
        box((0.75, 0.28, 0.13), (back + 0.28, 0, 0.76), _DARK),
        box((0.5, 0.24, 0.14), (back - 0.02, 0, 0.66), paint, PAINT),
        box((0.6, 0.32, 0.36), (-0.02, 0, 0.42), _DARK * 1.6),
    ]
    if scooter:
        parts += [
            box((0.14, 0.42, 0.62), (front - 0.32, 0, 0.62), paint, PAINT),
            box((0.6, 0.36, 0.3), (back + 0.15, 0, 0.5), paint, PAINT),
        ]
    else:
        parts.append(box((0.52, 0.3, 0.26), (0.12, 0, 0.84), paint, PAINT, (0.8, 0.7)))
    if rng.random() < 0.3:
        parts.append(box((0.36, 0.4, 0.34), (back - 0.05, 0, 0.98), _DARK))
    hip = np.array([back + 0.42, 0.0, 0.86])
    feet = (np.array([0.08, 0.2, 0.34]), np.array([0.08, -0.2, 0.34]))
    parts.append(
        _rider(hip, np.array([front - 0.3, 0, 1.04]), feet, 0.12 if scooter else 0.26, colours, helmet_all_round=True)
    )
    return _shape("motorcycle", [join(parts)])
