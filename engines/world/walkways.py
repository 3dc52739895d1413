"""Where people walk: pavements around the blocks, crossings over the streets."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from engines.world.town import CROSSING_END_M, CROSSING_START_M, Town
from perception.messages import Float


class Crossing(NamedTuple):
    """A way over a street: at a junction with lights, or a zebra of an edge (then `junction` is -1)."""

    junction: int
    edge: int


class Walkways:
    """A graph: `nodes` (n, 2), and per node its `links` as (node, crossing index or -1)."""

    def __init__(self, town: Town) -> None:
        self._places: list[Float] = []
        self.links: list[list[tuple[int, int]]] = []
        self.crossings: list[Crossing] = []
        corners = self._corners(town)
        for edge in town.edges:
            middle = (CROSSING_START_M + CROSSING_END_M) / 2
            stations = [
                (edge.clear[0] + middle, edge.junctions[0]),
                (edge.length - edge.clear[1] - middle, edge.junctions[1]),
            ]
            if edge.zebra is not None:
                stations.insert(1, (edge.zebra, -1))
            off = edge.street.half_m + edge.street.pavement_m * 0.55
            rows = [[self._add(edge.at(s, sign * off)) for s, _ in stations] for sign in (-1, 1)]
            for left, right, (_, junction) in zip(*rows, stations, strict=True):
                self._link(left, right, len(self.crossings))
                self.crossings.append(Crossing(junction, edge.index))
            for row, sign in zip(rows, (-1, 1), strict=True):
                for a, b in pairwise(row):
                    self._link(a, b, -1)
                for node, (_, junction), way in ((row[0], stations[0], 1), (row[-1], stations[-1], -1)):
                    quadrant = np.sign(way * edge.along + sign * edge.left)
                    self._link(node, corners[junction, int(quadrant[0]), int(quadrant[1])], -1)
        self.nodes = np.array(self._places)

    def _corners(self, town: Town) -> dict[tuple[int, int, int], int]:
        """A node in each corner of each junction, joined where no street comes between."""
        corners = {}
        for number, junction in enumerate(town.junctions):
            for sx in (-1, 1):
                for sy in (-1, 1):
                    corners[number, sx, sy] = self._add(junction.centre + (junction.half + 2.2) * [sx, sy])
            arms = set()
            for edge, direction in junction.approaches:
                arms.add(tuple(int(v) for v in np.round(-direction * town.edges[edge].along)))
            for arm, a, b in (((1, 0), (1, -1), (1, 1)), ((-1, 0), (-1, -1), (-1, 1)),
                              ((0, 1), (-1, 1), (1, 1)), ((0, -1), (-1, -1), (1, -1))):  # fmt: skip
                if arm not in arms:
                    self._link(corners[number, a[0], a[1]], corners[number, b[0], b[1]], -1)
        return corners

    def _add(self, place: Float) -> int:
        self._places.append(place)
        self.links.append([])
        return len(self._places) - 1

    def _link(self, a: int, b: int, crossing: int) -> None:
        self.links[a].append((b, crossing))
        self.links[b].append((a, crossing))
