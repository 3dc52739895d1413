"""All that stands still: buildings, the underpass, trees, lamps, signs, street furniture."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from engines.world import facade, mesh
from engines.world.mesh import (
    FACADE,
    LEAVES,
    LIT,
    PAINT,
    Mesh,
    ball,
    box,
    hull_of_rings,
    join,
    limb,
    linear,
    pillar,
    polygon,
)
from engines.world.scenario import stream
from engines.world.town import STOP_LINE_M, TUNNEL_HEIGHT_M, ZEBRA_M, Block, Edge, Town
from perception.messages import Float

LAMP_HEIGHT_M: Final = 7.2
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
_LEAF: Final = tuple(linear(c) for c in ("#4c6b34", "#5d7a3a", "#3f5f36", "#6d7f3d", "#7d7a38", "#54703f"))
_BARK: Final = linear("#4f4338")
_STEEL: Final = linear("#6d7377")
_DARK: Final = linear("#2b2e31")
_CONCRETE: Final = linear("#98968f")
_RED: Final = linear("#b3221f")
_BLUE: Final = linear("#1f4f94")
_WHITE: Final = linear("#e8e8e6")
_YELLOW: Final = linear("#d9a92a")


@dataclass(frozen=True, slots=True)
class Signal:
    """A traffic light: which junction and approach it speaks to, and where its lamps are; (x, y, heading)."""

    junction: int
    approach: int
    place: tuple[float, float, float]


@dataclass(slots=True)
class Scenery:
    """What stands in a town: one mesh; where its lamps hang, (n, 2); its traffic lights."""

    mesh: Mesh
    lamps: Float
    signals: list[Signal] = field(default_factory=list)


def build(town: Town, seed: int) -> Scenery:
    """Everything that stands still."""
    rng = stream(seed, "scenery")
    parts: list[Mesh] = []
    for block in town.blocks:
        _fill(parts, block, town, rng)
    for edge in town.edges:
        if edge.tunnel is not None:
            _underpass(parts, edge, rng)
    lamps = _lamps(parts, town)
    for edge in town.edges:
        _roadside(parts, edge, rng)
    signals = _signals(parts, town)
    return Scenery(join(parts), lamps, signals)


def tunnel_rectangles(town: Town) -> list[tuple[Float, Float]]:
    """The covered areas: their low and high corners."""
    found = []
    for edge in town.edges:
        if edge.tunnel is not None:
            corners = np.array(
                [edge.at(edge.tunnel[0], -_tunnel_half(edge)), edge.at(edge.tunnel[1], _tunnel_half(edge))]
            )
            found.append((corners.min(0), corners.max(0)))
    return found


def _tunnel_half(edge: Edge) -> float:
    return edge.street.half_m + edge.street.pavement_m


def _fill(parts: list[Mesh], block: Block, town: Town, rng: np.random.Generator) -> None:
    low, high = block.inner
    outside = 0.0 in block.pavements
    if outside:
        along = int(high[1] - low[1] > high[0] - low[0])
        front = int(np.flatnonzero(block.pavements)[0])
        _row(parts, block, low, high, along=along, front_high=front % 2 == 1, town=town, rng=rng)
    elif block.district == "park":
        _park(parts, low, high, rng)
    elif block.district == "towers":
        _towers(parts, low, high, town, rng)
    else:
        depth = 12.0
        _row(parts, block, low, np.array([high[0], low[1] + depth]), along=0, front_high=False, town=town, rng=rng)
        _row(parts, block, np.array([low[0], high[1] - depth]), high, along=0, front_high=True, town=town, rng=rng)
        inner_low, inner_high = low + [0, depth + 3], high - [0, depth + 3]
        if inner_high[1] - inner_low[1] > 10:
            _row(
                parts,
                block,
                inner_low,
                np.array([low[0] + depth, inner_high[1]]),
                along=1,
                front_high=False,
                town=town,
                rng=rng,
            )
            _row(
                parts,
                block,
                np.array([high[0] - depth, inner_low[1]]),
                inner_high,
                along=1,
                front_high=True,
                town=town,
                rng=rng,
            )


def _row(
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
    covered = tunnel_rectangles(town)
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
            _tree(parts, float(middle[0]), float(middle[1]), rng, 1.2)
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
    colour = _LEAF[int(rng.integers(len(_LEAF)))] * 0.8 if green else wall * 0.8
    parts.append(box(size, hedge_middle, colour, LEAVES if green else mesh.PLAIN, (0.98, 0.98)))
    if rng.random() < 0.6:
        garden = at(rng.uniform(low[along] + 2, high[along] - 2), line + (-1.4 if front_high else 1.4), 0)
        _tree(parts, float(garden[0]), float(garden[1]), rng, 0.55)


def _towers(parts: list[Mesh], low: Float, high: Float, town: Town, rng: np.random.Generator) -> None:
    """One or two big modern blocks on a square with trees."""
    covered = tunnel_rectangles(town)
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
        _tree(parts, float(place[0]), float(place[1]), rng, rng.uniform(0.7, 1.0))


def _park(parts: list[Mesh], low: Float, high: Float, rng: np.random.Generator) -> None:
    middle = (low + high) / 2
    for x in np.arange(low[0] + 4, high[0] - 3, 9.0):
        for y in np.arange(low[1] + 4, high[1] - 3, 9.0):
            place = np.array([x, y]) + rng.uniform(-3, 3, 2)
            if rng.random() < 0.75 and (np.abs(place - middle) > 3).all():
                _tree(parts, float(place[0]), float(place[1]), rng, rng.uniform(0.8, 1.5))
    for _ in range(10):
        x, y = rng.uniform(low + 2, high - 2)
        _bush(parts, x, y, rng)
    hedge = _LEAF[2] * 0.7
    for y in (low[1] + 0.4, high[1] - 0.4):
        for sign in (-1, 1):
            length = (high[0] - low[0]) / 2 - 5
            parts.append(
                box((length, 0.7, 0.9), (middle[0] + sign * (length / 2 + 3), y, 0.45), hedge, LEAVES, (0.99, 0.85))
            )


def _bush(parts: list[Mesh], x: float, y: float, rng: np.random.Generator) -> None:
    colour = _LEAF[int(rng.integers(len(_LEAF)))] * rng.uniform(0.7, 1.0)
    size = rng.uniform(0.6, 1.3)
    parts.append(_crown((x, y, size * 0.6), (size, size, size * 0.75), colour, rng, detail=0))


def _tree(parts: list[Mesh], x: float, y: float, rng: np.random.Generator, scale: float = 1.0) -> None:
    """A trunk and a crown of three rough balls; one in eight is a conifer."""
    height = scale * rng.uniform(5.5, 8.0)
    colour = _LEAF[int(rng.integers(len(_LEAF)))] * rng.uniform(0.8, 1.15)
    if rng.random() < 0.12:
        parts.append(pillar(0.16 * scale, height * 0.3, (x, y, 0), _BARK, 5))
        parts += [
            _rough(
                pillar(
                    scale * 1.6 * (1 - 0.27 * i),
                    height * 0.42,
                    (x, y, height * (0.18 + 0.24 * i)),
                    _LEAF[2] * 0.65,
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


def _underpass(parts: list[Mesh], edge: Edge, rng: np.random.Generator) -> None:
    """The street runs under a building: walls, a ceiling with lamps, portals, storeys above."""
    assert edge.tunnel is not None  # noqa: S101
    start, end = edge.tunnel
    half = _tunnel_half(edge)
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


def _lamps(parts: list[Mesh], town: Town) -> Float:
    """Street lamps every 27 m, on both sides in turn; none in the underpass."""
    places = []
    for edge in town.edges:
        first, last = edge.clear[0] + STOP_LINE_M + 1, edge.length - edge.clear[1] - STOP_LINE_M - 1
        for i, s in enumerate(np.arange(first, last + 1, max((last - first) / max(round((last - first) / 22), 1), 1))):
            if edge.tunnel is not None and edge.tunnel[0] - 3 < s < edge.tunnel[1] + 3:
                continue
            sign = 1 if i % 2 else -1
            foot = edge.at(s, sign * (edge.street.half_m + 0.6))
            arm = edge.left * -sign
            head = foot + arm * 1.8
            parts += [
                pillar(0.09, LAMP_HEIGHT_M, (*foot, 0), _STEEL * 0.6, 6, 0.6),
                pillar(0.15, 0.9, (*foot, 0), _STEEL * 0.5, 6),
                limb((*foot, LAMP_HEIGHT_M - 0.05), (*head, LAMP_HEIGHT_M + 0.15), 0.09, _STEEL * 0.6),
            ]
            length, wide = (0.75, 0.3) if abs(arm[0]) > 0.5 else (0.3, 0.75)
            parts.append(box((length, wide, 0.1), (*head, LAMP_HEIGHT_M + 0.16), _STEEL * 0.5))
            parts.append(
                box(
                    (length * 0.85, wide * 0.85, 0.06),
                    (*head, LAMP_HEIGHT_M + 0.08),
                    linear("#f4efe2"),
                    LIT,
                    bottom=True,
                )
            )
            places.append(head)
    return np.array(places)


def _signals(parts: list[Mesh], town: Town) -> list[Signal]:
    """Masts at the stop lines, on the right; the lamps themselves change and are drawn with what moves."""
    found = []
    for number, junction in enumerate(town.junctions):
        if len(junction.approaches) < 3:
            continue
        for approach, (index, direction) in enumerate(junction.approaches):
            edge = town.edges[index]
            s = edge.length - edge.clear[1] - STOP_LINE_M + 0.3 if direction > 0 else edge.clear[0] + STOP_LINE_M - 0.3
            right = -(edge.street.half_m + 0.5) * direction
            foot = edge.at(s, right)
            along = edge.along * direction
            heading = float(np.arctan2(along[1], along[0]))
            parts.append(pillar(0.07, 3.3, (*foot, 0), _DARK, 6))
            found.append(Signal(number, approach, (float(foot[0]), float(foot[1]), heading)))
    return found


def signal_mesh(state: str) -> Mesh:
    """A traffic light's head, facing against heading 0, with one of red, amber or green lit."""
    parts = [box((0.24, 0.34, 1.0), (0, 0, 2.75), _DARK), box((0.02, 0.5, 1.16), (0.1, 0, 2.75), _DARK * 0.6)]
    angle = -np.arange(8) * np.pi / 4
    lamps = (
        ("red", 3.07, _RED, mesh.RED),
        ("amber", 2.75, _YELLOW, mesh.AMBER),
        ("green", 2.43, linear("#1f9a5a"), mesh.GREEN),
    )
    for name, z, colour, kind in lamps:
        disc = np.c_[np.full(8, -0.13), 0.115 * np.cos(angle), z + 0.115 * np.sin(angle)]
        lit = name == state
        parts.append(polygon(disc, colour if lit else colour * 0.12, kind if lit else mesh.PLAIN))
    return join(parts)


def _roadside(parts: list[Mesh], edge: Edge, rng: np.random.Generator) -> None:
    """Trees, signs, benches and the like, along both pavements and in the median."""
    street = edge.street
    first, last = edge.clear[0] + STOP_LINE_M + 5, edge.length - edge.clear[1] - STOP_LINE_M - 5
    trees = rng.random() < 0.55
    for sign in (-1, 1):
        kerb = sign * (street.half_m + 0.75)
        heading = edge.along * -sign
        yaw = float(np.arctan2(heading[1], heading[0]))
        for s in np.arange(first + 4, last, rng.uniform(9, 14)):
            if trees and _free(edge, s) and rng.random() < 0.85:
                x, y = edge.at(s, kerb + sign * 0.35)
                _tree(parts, x, y, rng, rng.uniform(0.62, 0.95))
        for s in rng.uniform(first, last, int(rng.integers(2, 6))):
            if _free(edge, s):
                _furniture(parts, edge, s, kerb, sign, rng)
        for s in rng.uniform(first, last, int(rng.integers(1, 3))):
            if _free(edge, s):
                _sign(parts, edge.at(s, kerb), yaw, rng)
        if edge.zebra is not None:
            _zebra_side(parts, edge, edge.zebra, kerb, sign, yaw)
    if street.median_m and trees:
        for s in np.arange(first, last, 11.0):
            if edge.zebra is None or abs(s - edge.zebra) > 4:
                x, y = edge.at(s, 0.0)
                _tree(parts, x, y, rng, 0.6)


def _free(edge: Edge, s: float) -> bool:
    """Whether something may stand by the kerb there."""
    away = edge.zebra is None or abs(s - edge.zebra) > ZEBRA_M
    return away and (edge.tunnel is None or not edge.tunnel[0] - 6 < s < edge.tunnel[1] + 6)


def _zebra_side(parts: list[Mesh], edge: Edge, zebra: float, kerb: float, sign: int, yaw: float) -> None:
    """A zebra crossing's sign, and a bollard on either hand."""
    x, y = edge.at(zebra + sign * (ZEBRA_M / 2 + 0.4), kerb)
    plates = [_plate(4, 0.42, 2.55, _BLUE), _plate(3, 0.27, 2.57, _WHITE, 0.05)]
    parts.append(join([_pole(2.9), *plates]).moved(x, y, 0, yaw))
    for offset in (-ZEBRA_M / 2 - 0.3, ZEBRA_M / 2 + 0.3):
        foot = edge.at(zebra + offset, kerb - sign * 0.3)
        parts.append(pillar(0.07, 0.9, (*foot, 0), _DARK, 6))


def _pole(height: float) -> Mesh:
    return pillar(0.035, height, (0, 0, 0), _STEEL, 5)


def _plate(sides: int, radius: float, z: float, colour: Float, out: float = 0.04, turn: float = 0.0) -> Mesh:
    """A regular plate on a pole, seen by whoever drives with heading 0."""
    angle = -np.arange(sides) * 2 * np.pi / sides + np.pi / 2 + turn + (np.pi / 4 if sides == 4 else 0)
    points = np.c_[np.full(sides, -out), radius * np.cos(angle), z + radius * np.sin(angle)]
    back = points[::-1] + [0.015, 0, 0]
    return join([polygon(points, colour, PAINT), polygon(back, _STEEL)])


def _sign(parts: list[Mesh], place: Float, yaw: float, rng: np.random.Generator) -> None:
    kind = int(rng.integers(5))
    plates = {
        0: [_plate(12, 0.32, 2.4, _RED), _plate(12, 0.235, 2.4, _WHITE, 0.05)],
        1: [_plate(3, 0.42, 2.4, _RED), _plate(3, 0.27, 2.4, _WHITE, 0.05)],
        2: [_plate(8, 0.36, 2.4, _RED, turn=np.pi / 8)],
        3: [_plate(4, 0.4, 2.4, _BLUE), _plate(4, 0.25, 2.4, _WHITE, 0.05)],
        4: [_plate(12, 0.3, 2.4, _BLUE)],
    }[kind]
    parts.append(join([_pole(2.75), *plates]).moved(float(place[0]), float(place[1]), 0, yaw))


def _furniture(parts: list[Mesh], edge: Edge, s: float, kerb: float, sign: int, rng: np.random.Generator) -> None:
    place = edge.at(s, kerb + sign * 0.2)
    yaw = float(np.arctan2(edge.along[1], edge.along[0]))
    kind = rng.choice(
        ["bin", "bench", "bollards", "cabinet", "shelter", "planter"], p=[0.22, 0.2, 0.2, 0.14, 0.1, 0.14]
    )
    wood = linear("#75573b")
    if kind == "bin":
        made = [pillar(0.24, 0.9, (0, 0, 0), linear("#3c4a43"), 8), pillar(0.26, 0.08, (0, 0, 0.9), _DARK, 8)]
    elif kind == "bench":
        made = [
            box((1.6, 0.45, 0.07), (0, 0, 0.45), wood, bottom=True),
            box((1.6, 0.06, 0.35), (0, sign * -0.22, 0.75), wood),
        ]
        made += [box((0.08, 0.4, 0.42), (x, 0, 0.21), _DARK) for x in (-0.65, 0.65)]
    elif kind == "bollards":
        made = [pillar(0.06, 0.85, (x, 0, 0), _DARK, 6) for x in np.arange(-4.5, 4.6, 1.5)]
    elif kind == "cabinet":
        made = [box((1.0, 0.4, 1.25), (0, 0, 0.62), linear("#8d948c"))]
    elif kind == "planter":
        made = [
            box((1.5, 0.6, 0.5), (0, 0, 0.25), _CONCRETE * 0.7),
            ball((0.75, 0.32, 0.4), (0, 0, 0.62), _LEAF[1], LEAVES),
        ]
    else:
        y = sign * 1.1
        glass = linear("#3a474c")
        made = [
            box((3.6, 1.5, 0.1), (0, y, 2.45), _DARK, bottom=True),
            box((3.4, 0.05, 1.9), (0, y + sign * 0.6, 1.25), glass, mesh.GLASS),
            box((0.05, 1.1, 1.9), (-1.68, y, 1.25), linear("#c9d3c4"), LIT),
            box((1.8, 0.4, 0.06), (0.3, y + sign * 0.3, 0.5), wood, bottom=True),
        ]
        made += [pillar(0.04, 2.4, (x, y - sign * 0.6, 0), _DARK, 4) for x in (-1.7, 1.7)]
    parts.append(join(made).moved(float(place[0]), float(place[1]), 0, yaw))
