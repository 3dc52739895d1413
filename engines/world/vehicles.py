"""Cars, lorries and buses: bodies of a few hundred triangles, heading along x, standing on z = 0."""

from __future__ import annotations

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
    box,
    hull_of_rings,
    join,
    limb,
    linear,
    polygon,
    side_profile,
    wheel,
)
from engines.world.shapes import DARK, HUB, PAINTS, PLATE, RED_LAMP, TYRE, WHITE_LAMP, Shape, centred, panel, pick
from perception.messages import Float

_GLASS: Final = linear("#1b2228")
_AMBER_LAMP: Final = linear("#b8681c")
_PAINT_ODDS: Final = np.array([14, 12, 11, 10, 10, 9, 5, 6, 4, 5, 2, 3, 3, 3, 2, 1]) / 100
_BUS_PAINTS: Final = tuple(linear(c) for c in ("#b53a2e", "#e0dccb", "#2f6a4f", "#35608f", "#d7a83a", "#c9ced1"))
_LOAD_PAINTS: Final = tuple(
    linear(c) for c in ("#e3e3df", "#d2d5d6", "#8aa0b5", "#3e5d7e", "#8a3b33", "#5d7357", "#c79a45")
)


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
    paint = PAINTS[int(rng.choice(len(PAINTS), p=_PAINT_ODDS))] * rng.uniform(0.9, 1.1)
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
        _both_sides(side + 0.008, (-half * 0.42, half * 0.44), (0.24, 0.36), DARK, mesh.PLAIN),
        panel(half + 0.006, (-side * 0.62, side * 0.62), (0.36, nose - 0.18), DARK, mesh.PLAIN),
        panel(-half - 0.006, (-side + 0.1, side - 0.1), (0.3, 0.44), DARK, mesh.PLAIN),
        _lamps(half + 0.012, half + 0.012, side, nose - 0.1),
    ]
    for sign in (-1, 1):
        parts.append(
            box((0.12, 0.16, 0.12), (foot * half - 0.16, sign * (side + 0.08), belt + 0.06), paint * 0.8, PAINT)
        )
    return centred("car", [join(parts)], width=width)


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
    paint = pick(rng, PAINTS[:14])
    load = pick(rng, _LOAD_PAINTS)
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
        box((length - 0.5, width * 0.5, 0.24), (-0.2, 0, 0.72), DARK),
        panel(half + 0.01, (-side * 0.7, side * 0.7), (0.86, 1.32), DARK, mesh.PLAIN),
        _lamps(half + 0.015, half + 0.012, side - 0.04, 0.74, (0.34, 0.18)),
        _wheels(
            (half - 1.0, -half + 1.5, -half + 2.65) if length > 8 else (half - 1.0, -half + 1.5), side - 0.02, 0.48, 0.3
        ),
        box((0.08, width - 0.2, 0.14), (-half + 0.08, 0, 0.55), DARK),
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
        parts.append(panel(-half - 0.01, (-0.03, 0.03), (0.95, height - 0.1), load * 0.5, mesh.PLAIN))
        if kind == "curtain":
            folds = np.arange(-half + 0.3, cab_back - 0.4, 0.55)
            parts += [
                _both_sides(side + 0.012, (x, x + 0.16), (0.95, height - 0.12), load * 0.8, mesh.PLAIN) for x in folds
            ]
        else:
            band = pick(rng, _BUS_PAINTS)
            z = height * rng.uniform(0.5, 0.65)
            parts.append(_both_sides(side + 0.012, (-half + 0.4, cab_back - 0.5), (z, z + 0.5), band, mesh.PLAIN))
    return centred("truck", [join(parts)])


def bus(rng: np.random.Generator) -> Shape:
    """A city bus: a long box with a band of windows, doors on the right, a lit destination."""
    length, width, height = rng.uniform(10.2, 12.2), 2.52, rng.uniform(2.95, 3.15)
    half, side = length / 2, width / 2
    paint, second = pick(rng, _BUS_PAINTS), pick(rng, _BUS_PAINTS)
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
        panel(-half - 0.012, (-y + 0.15, y - 0.15), (1.55, 2.5), _GLASS, GLASS),
        _both_sides(side + 0.008, (-half + 0.1, half - 0.1), (0.28, 0.5), DARK, mesh.PLAIN),
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
    return centred("bus", [join(parts)])


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
            parts.append(wheel(radius, thickness, (x, y, radius), TYRE))
            angle = np.arange(6) * np.pi / 3
            face = np.c_[
                x - sign * radius * 0.62 * np.cos(angle),
                np.full(6, y + sign * (thickness / 2 + 0.012)),
                radius + radius * 0.62 * np.sin(angle),
            ]
            parts.append(polygon(face, HUB, PAINT))
            angle = np.linspace(0, np.pi, 7)
            arch = np.c_[
                x - sign * radius * 1.22 * np.cos(angle),
                np.full(7, sign * (half_width + 0.004)),
                radius + radius * 1.22 * np.sin(angle),
            ]
            parts.append(polygon(arch[::-1] if False else arch, DARK * 0.5))
    return join(parts)


def _lamps(front: float, back: float, half_width: float, z: float, size: tuple[float, float] = (0.36, 0.14)) -> Mesh:
    wide, high = size
    inner, outer = half_width - 0.08 - wide, half_width - 0.08
    parts = [
        panel(-back, (-0.26, 0.26), (z - 0.2, z - 0.09), PLATE, mesh.PLAIN),
        panel(front, (-0.26, 0.26), (z - 0.3, z - 0.19), PLATE, mesh.PLAIN),
    ]
    for sign, turn in ((1, LEFT), (-1, RIGHT)):
        y = (inner, outer) if sign > 0 else (-outer, -inner)
        tip = (outer - 0.1, outer + 0.02) if sign > 0 else (-outer - 0.02, -outer + 0.1)
        parts += [
            panel(front, y, (z - high / 2, z + high / 2), WHITE_LAMP, HEADLAMP),
            panel(front, tip, (z - high, z - high / 2), _AMBER_LAMP, turn),
            panel(-back, y, (z + 0.03, z + 0.03 + high), RED_LAMP, BRAKE),
            panel(-back, y, (z - 0.07, z + 0.03), RED_LAMP, TAIL),
            panel(-back, tip, (z - 0.15, z - 0.07), _AMBER_LAMP, turn),
        ]
    return join(parts)
