"""Houses in rows, detached houses, towers, and the building that a street runs under."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from engines.world import facade, mesh
from engines.world.greenery import LEAF, tree
from engines.world.mesh import FACADE, LEAVES, LIT, Mesh, box, hull_of_rings, linear, polygon
from engines.world.town import TUNNEL_HEIGHT_M, Block, Edge, Town, tunnel_half
from perception.messages import Float

DECK_M: Final = 6.6
"""Height of the underpass's top."""
_WALLS: Final = tuple(
    linear(c)
    for c in ("#cfc6b4", "#b9a98f", "#d8d2c6", "#a8705a", "#8e5647", "#c4b49a", "#9aa0a3", "#b7bcbd", "#7d6a5b",
              "#c9a98a", "#dcd7cf", "#ab9c8c", "#8b8f86", "#b98f70")
)  # fmt: skip
_BRICKS: Final = tuple(linear(c) for c in ("#8e4f3e", "#a05f48", "#7a4638", "#9b7a62"))
_MODERN: Final = tuple(linear(c) for c in ("#9aa3a8", "#c3c8ca", "#6c757c", "#b5ab9e", "#e0e0dc"))
_ROOFS: Final = tuple(linear(c) for c in ("#7c4132", "#8f4e3a", "#4a4b50", "#5a4a41"))
_AWNINGS: Final = tuple(linear(c) for c in ("#8e2f2b", "#2f5d4a", "#2f4a73", "#b88a3a", "#d9d2c2", "#5c3a4e"))
_CONCRETE: Final = linear("#98968f")
_YELLOW: Final = linear("#d9a92a")


def row(
    parts: list[Mesh],
    block: Block,
    low: Float,
    high: Float,
    *,
    along: int,
    front_high: bool,
    town: Town,
    rng: np.random.Generator,
) -> None:
    """Houses side by side, from `low` to `high` along x (0) or y (1); fronts at the high or the low side of the row."""
    covered = town.tunnels
    at = low[along]
    while at < high[along] - 7:
        width = min(float(rng.uniform(9, 21)), high[along] - at)
        if high[along] - at - width < 7:
            width = high[along] - at
        a, b = low.copy(), high.copy()
        a[along], b[along] = at, at + width
        at += width
        depth = float(rng.uniform(10, 13))
        across = 1 - along
        if front_high:
            a[across] = b[across] - min(depth, b[across] - a[across])
        else:
            b[across] = a[across] + min(depth, b[across] - a[across])
        if any((a < h + 0.5).all() and (b > w - 0.5).all() for w, h in covered):
            continue
        if block.district == "houses":
            _house(parts, a, b, along, front_high=front_high, rng=rng)
        elif rng.random() < 0.06:
            middle = (a + b) / 2
            tree(parts, float(middle[0]), float(middle[1]), rng, 1.2)
        else:
            _building(parts, a, b, int(rng.integers(2, 6)), rng)


def _building(parts: list[Mesh], low: Float, high: Float, floors: int, rng: np.random.Generator) -> None:
    """A town house: shops or a base on the ground, storeys of one style, a cornice."""
    styles = (facade.CLASSIC, facade.PAIR, facade.SMALL, facade.RIBBON, facade.BALCONY)
    style = int(rng.choice(styles, p=(0.3, 0.25, 0.18, 0.12, 0.15)))
    palette = {facade.SMALL: _BRICKS, facade.RIBBON: _MODERN}.get(style, _WALLS)
    wall = palette[int(rng.integers(len(palette)))] * rng.uniform(0.85, 1.1)
    ground_height, storey = rng.uniform(3.6, 4.4), rng.uniform(2.9, 3.4)
    top = ground_height + floors * storey
    shop = rng.random() < 0.6
    base = wall * rng.uniform(0.6, 0.95) if rng.random() < 0.5 else linear("#6f6a64") * rng.uniform(0.7, 1.3)
    _walls(
        parts,
        low,
        high,
        (0.0, ground_height),
        base,
        facade.SHOP if shop else style,
        rng,
        cell=rng.uniform(3.2, 4.5),
        storeys=1,
    )
    _walls(parts, low, high, (ground_height, top), wall, style, rng, cell=rng.uniform(2.5, 3.4), storeys=floors)
    trim = wall * rng.uniform(0.7, 1.25)
    middle, extent = (low + high) / 2, high - low
    parts.append(box((extent[0] + 0.5, extent[1] + 0.5, 0.4), (middle[0], middle[1], top + 0.1), trim, bottom=True))
    parts.append(
        box((extent[0] + 0.24, extent[1] + 0.24, 0.28), (middle[0], middle[1], ground_height), trim, bottom=True)
    )
    if rng.random() < 0.35:
        roof = _ROOFS[int(rng.integers(len(_ROOFS)))]
        parts.append(
            box(
                (extent[0] + 0.2, extent[1] + 0.2, 2.6),
                (middle[0], middle[1], top + 1.6),
                roof,
                mesh.PLAIN,
                (1 - 3.4 / extent[0], 1 - 3.4 / extent[1]),
            )
        )
    if shop:
        _awnings(parts, low, high, rng)


def _awnings(parts: list[Mesh], low: Float, high: Float, rng: np.random.Generator) -> None:
    for side in range(4):
        if rng.random() > 0.5:
            continue
        along, across = (0, 1) if side < 2 else (1, 0)
        edge = (low, high)[side % 2][across]
        out = -1.0 if side % 2 == 0 else 1.0
        span = (low[along] + 0.8, high[along] - 0.8)
        colour = _AWNINGS[int(rng.integers(len(_AWNINGS)))]
        reach = rng.uniform(0.9, 1.3)

        def at(
            s: float, o: float, z: float, along: int = along, across: int = across, edge: float = edge, out: float = out
        ) -> Float:
            point = np.zeros(3)
            point[along], point[across], point[2] = s, edge + out * o, z
            return point

        rings = [[at(s, 0.05, 3.25), at(s, reach, 2.65), at(s, reach, 2.45), at(s, 0.05, 2.95)] for s in span]
        parts.append(hull_of_rings([np.array(r) for r in rings], colour, cap_bottom=True))


def _walls(
    parts: list[Mesh], low: Float, high: Float, z: tuple[float, float], colour: Float, style: int,
    rng: np.random.Generator, *, cell: float, storeys: int,
) -> None:  # fmt: skip
    """Four walls covered in whole cells of about `cell` metres."""
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    rise = storeys / (z[1] - z[0])
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        length = float(np.abs(b - a).sum())
        cells = max(round(length / cell), 1)
        per_m = (b - a) / length * cells / length
        wall = polygon([(*a, z[0]), (*b, z[0]), (*b, z[1]), (*a, z[1])], colour, FACADE + style)
        first = int(rng.integers(1000)) * 16
        wall.textures[:] = (*per_m, first - per_m @ a, rise, -z[0] * rise)
        parts.append(wall)
    parts.append(polygon(np.c_[corners, np.full(4, z[1])], colour * 0.7))


def _house(
    parts: list[Mesh], low: Float, high: Float, along: int, *, front_high: bool, rng: np.random.Generator
) -> None:
    """A detached house with a gable roof, set back behind a hedge or fence."""
    across = 1 - along
    back = rng.uniform(2.0, 3.5)
    a, b = low.copy(), high.copy()
    a[along] += rng.uniform(1.0, 2.0)
    b[along] -= rng.uniform(1.0, 2.0)
    (b if front_high else a)[across] += -back if front_high else back
    floors = int(rng.integers(1, 3))
    wall = _WALLS[int(rng.integers(len(_WALLS)))] * rng.uniform(0.9, 1.15)
    top = floors * 2.8 + 0.3
    _walls(parts, a, b, (0.0, top), wall, facade.HOUSE, rng, cell=3.4, storeys=floors)
    roof = _ROOFS[int(rng.integers(len(_ROOFS)))] * rng.uniform(0.85, 1.15)
    ridge = (b[across] - a[across]) * rng.uniform(0.3, 0.42)
    over = 0.45
    middle = (a[across] + b[across]) / 2

    def at(s: float, t: float, z: float) -> Float:
        point = np.zeros(3)
        point[along], point[across], point[2] = s, t, z
        return point

    section = [(a[across] - over, top - 0.15), (b[across] + over, top - 0.15), (middle, top + ridge)]
    rings = [np.array([at(s, t, z) for t, z in section]) for s in (a[along] - over, b[along] + over)]
    parts.append(hull_of_rings(rings, roof, cap_bottom=True))
    gable = [
        np.array([at(s, t * 0.93 + middle * 0.07, z - 0.1) for t, z in section])
        for s in (a[along] - over - 0.02, b[along] + over + 0.02)
    ]
    parts.append(hull_of_rings(gable, wall, cap_bottom=True))
    chimney = at(a[along] + (b[along] - a[along]) * rng.uniform(0.2, 0.8), middle + 1.0, top + ridge * 0.9)
    parts.append(box((0.6, 0.6, 1.6), chimney, _BRICKS[0]))
    line = (high if front_high else low)[across] + (-0.3 if front_high else 0.3)
    green = rng.random() < 0.6
    height = rng.uniform(0.7, 1.3)
    hedge_middle = at((low[along] + high[along]) / 2, line, height / 2)
    size = at(high[along] - low[along] - 2.4, 0.5 if green else 0.12, height)
    size[across] = 0.5 if green else 0.12
    colour = LEAF[int(rng.integers(len(LEAF)))] * 0.8 if green else wall * 0.8
    parts.append(box(size, hedge_middle, colour, LEAVES if green else mesh.PLAIN, (0.98, 0.98)))
    if rng.random() < 0.6:
        garden = at(rng.uniform(low[along] + 2, high[along] - 2), line + (-1.4 if front_high else 1.4), 0)
        tree(parts, float(garden[0]), float(garden[1]), rng, 0.55)


def towers(parts: list[Mesh], low: Float, high: Float, town: Town, rng: np.random.Generator) -> None:
    """One or two big modern blocks on a square with trees."""
    covered = town.tunnels
    middle = (low + high) / 2
    wide = int(np.argmax(high - low))
    for sign in (-1, 1):
        a, b = low + 5.0, high - 5.0
        if sign < 0:
            b[wide] = middle[wide] - 4
        else:
            a[wide] = middle[wide] + 4
        if any((a < h + 0.5).all() and (b > w - 0.5).all() for w, h in covered):
            continue
        storey, floors = 3.5, int(rng.integers(4, 9))
        wall = _MODERN[int(rng.integers(len(_MODERN)))]
        style = facade.CURTAIN if rng.random() < 0.55 else facade.RIBBON
        _walls(parts, a, b, (0.0, 4.6), wall * 0.6, facade.SHOP, rng, cell=4.2, storeys=1)
        _walls(parts, a - 0.4, b + 0.4, (4.6, 4.6 + floors * storey), wall, style, rng, cell=3.0, storeys=floors)
    for _ in range(int(rng.integers(6, 12))):
        side = int(rng.integers(2))
        place = rng.uniform(low + 1.5, high - 1.5)
        place[side] = rng.choice([low[side] + 2.2, high[side] - 2.2])
        if not town.built_over(*place):
            tree(parts, float(place[0]), float(place[1]), rng, rng.uniform(0.7, 1.0))


def underpass(parts: list[Mesh], edge: Edge, rng: np.random.Generator) -> None:
    """The street runs under a building: walls, a ceiling with lamps, portals, storeys above."""
    assert edge.tunnel is not None  # noqa: S101
    start, end = edge.tunnel
    half = tunnel_half(edge)
    tiles = linear("#c8c5b8") * 0.8
    deck = _CONCRETE * rng.uniform(0.75, 1.0)

    def solid(
        along: tuple[float, float],
        left: tuple[float, float],
        z: tuple[float, float],
        colour: Float,
        kind: int = mesh.PLAIN,
    ) -> Mesh:
        ring = np.array([[*edge.at(along[i], left[j]), z[0]] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])
        return hull_of_rings([ring, ring + [0, 0, z[1] - z[0]]], colour, kind, cap_bottom=True)

    # In pieces, so that light can fall off along the walls and near pieces can hide far ones.
    cuts = np.linspace(start, end, 9)
    for a, b in pairwise(cuts):
        for sign in (-1, 1):
            wall = sorted((sign * half, sign * (half + 1.2)))
            parts += [
                solid((a, b), (wall[0], wall[1]), (1.1, TUNNEL_HEIGHT_M), tiles),
                solid((a, b), (wall[0], wall[1]), (0.0, 1.1), linear("#54635f")),
            ]
        parts.append(solid((a, b), (-half - 1.2, half + 1.2), (TUNNEL_HEIGHT_M, DECK_M), deck * 0.55))
        for left in (-half * 0.45, half * 0.45):
            middle = (a + b) / 2
            parts.append(
                solid(
                    (middle - 1.1, middle + 1.1),
                    (left - 0.14, left + 0.14),
                    (TUNNEL_HEIGHT_M - 0.16, TUNNEL_HEIGHT_M - 0.04),
                    linear("#fff3d8"),
                    LIT,
                )
            )
    for s, out in ((start, -1), (end, 1)):
        face = sorted((s + out * 0.05, s + out * 0.6))
        parts.append(
            solid((face[0], face[1]), (-half - 1.6, half + 1.6), (TUNNEL_HEIGHT_M - 0.1, DECK_M + 0.7), deck * 1.15)
        )
        for sign in (-1, 1):
            post = sorted((sign * (half - 0.05), sign * (half + 1.6)))
            parts.append(solid((face[0], face[1]), (post[0], post[1]), (0.0, TUNNEL_HEIGHT_M), deck * 1.05))
        stripe = sorted((s + out * 0.61, s + out * 0.63))
        parts.append(
            solid((stripe[0], stripe[1]), (-2.2, 2.2), (TUNNEL_HEIGHT_M + 0.3, TUNNEL_HEIGHT_M + 1.0), _YELLOW)
        )
    over = half + rng.uniform(8, 12)
    ends = np.array([edge.at(start + 1.0, -over), edge.at(end - 1.0, over)])
    low, high = ends.min(0), ends.max(0)
    floors = int(rng.integers(3, 6))
    _walls(
        parts,
        low,
        high,
        (DECK_M, DECK_M + floors * 3.2),
        _WALLS[int(rng.integers(len(_WALLS)))],
        facade.PAIR,
        rng,
        cell=3.2,
        storeys=floors,
    )
    for sign in (-1, 1):
        side = sorted((sign * (half + 1.2), sign * over))
        ends = np.array([edge.at(start + 1.0, side[0]), edge.at(end - 1.0, side[1])])
        _walls(parts, ends.min(0), ends.max(0), (0.0, DECK_M), deck, facade.SHOP, rng, cell=4.5, storeys=1)
