"""What stands along the pavements: lamps, traffic lights, signs, benches and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.world import mesh
from engines.world.greenery import LEAF, tree
from engines.world.mesh import LEAVES, LIT, PAINT, Mesh, ball, box, join, limb, linear, pillar, polygon
from engines.world.town import STOP_LINE_M, ZEBRA_M, Edge, Town
from perception.messages import Float

LAMP_HEIGHT_M: Final = 7.2
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


def lamps(parts: list[Mesh], town: Town) -> Float:
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


def signals(parts: list[Mesh], town: Town) -> list[Signal]:
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


def roadside(parts: list[Mesh], edge: Edge, rng: np.random.Generator) -> None:
    """Trees, signs, benches and the like, along both pavements and in the median."""
    street = edge.street
    first, last = edge.clear[0] + STOP_LINE_M + 5, edge.length - edge.clear[1] - STOP_LINE_M - 5
    trees = rng.random() < 0.55
    for sign in (-1, 1):
        kerb = sign * (street.half_m + 0.75)
        heading = edge.along * -sign
        yaw = float(np.arctan2(heading[1], heading[0]))
        for s in _places(edge, np.arange(first + 4, last, rng.uniform(9, 14))):
            if trees and rng.random() < 0.85:
                x, y = edge.at(s, kerb + sign * 0.35)
                tree(parts, x, y, rng, rng.uniform(0.62, 0.95))
        for s in _places(edge, rng.uniform(first, last, int(rng.integers(2, 6)))):
            _furniture(parts, edge, s, kerb, sign, rng)
        for s in _places(edge, rng.uniform(first, last, int(rng.integers(1, 3)))):
            _sign(parts, edge.at(s, kerb), yaw, rng)
        if edge.zebra is not None:
            _zebra_side(parts, edge, edge.zebra, kerb, sign, yaw)
    if street.median_m and trees:
        away = [s for s in np.arange(first, last, 11.0) if edge.zebra is None or abs(s - edge.zebra) > 4]
        for x, y in (edge.at(s, 0.0) for s in away):
            tree(parts, x, y, rng, 0.6)


def _places(edge: Edge, along: Float) -> list[float]:
    """Those of some places along an edge where something may stand by the kerb."""
    free = [s for s in along.tolist() if edge.zebra is None or abs(s - edge.zebra) > ZEBRA_M]
    return [s for s in free if edge.tunnel is None or not edge.tunnel[0] - 6 < s < edge.tunnel[1] + 6]


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
            ball((0.75, 0.32, 0.4), (0, 0, 0.62), LEAF[1], LEAVES),
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
