"""The layout of a town: streets, junctions, lanes and how one leads to another, pavements, crossings, an underpass.

Streets form a grid with uneven spacing; around it runs a ring, so that no street ends. Traffic keeps to the right. The
ground is the plane z = 0; x is east and y is north, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from engines.world.scenario import stream
from perception.messages import Float

LANE_M: Final = 3.3
PARKING_M: Final = 2.3
CORNER_M: Final = 4.5
MARGIN_M: Final = 44.0
"""From the middle of the ring to the edge of the map."""

CROSSING_START_M: Final = 1.6
CROSSING_END_M: Final = 4.8
STOP_LINE_M: Final = 5.8
"""From the edge of the junction, into a street."""

TUNNEL_HEIGHT_M: Final = 5.2
ZEBRA_M: Final = 3.6
_BUILT_M: Final = 15.0

STRAIGHT, LEFT_TURN, RIGHT_TURN = "straight", "left", "right"


class Street(NamedTuple):
    """How a street is made: `lanes` each way, a `median_m` strip between them, bays for parking beside them."""

    lanes: int
    median_m: float
    parking: bool
    pavement_m: float

    @property
    def half_m(self) -> float:
        """From the middle to the kerb."""
        return self.median_m / 2 + self.lanes * LANE_M + (PARKING_M if self.parking else 0.0)


@dataclass(frozen=True, slots=True)
class Edge:
    """A piece of street from one junction to the next, in the direction of growing x or y.

    `start` and `end` are the middles of the junctions, `clear` how far the junctions reach into it from there. `zebra`
    is where a crossing lies and `tunnel` from where to where it is covered, in metres from `start`.
    """

    index: int
    junctions: tuple[int, int]
    start: Float
    end: Float
    street: Street
    clear: tuple[float, float]
    zebra: float | None
    tunnel: tuple[float, float] | None

    @property
    def length(self) -> float:
        """From middle to middle."""
        return float(np.abs(self.end - self.start).sum())

    @property
    def along(self) -> Float:
        """Unit vector."""
        direction: Float = (self.end - self.start) / self.length
        return direction

    @property
    def left(self) -> Float:
        """Unit vector to the left."""
        along = self.along
        return np.array([-along[1], along[0]])

    def at(self, along: float, left: float) -> Float:
        """The point so far along from `start` and so far to the left."""
        point: Float = self.start + along * self.along + left * self.left
        return point


class Path:
    """A polyline to drive along, by arc length."""

    def __init__(self, points: Float) -> None:
        self.points = points
        steps = np.hypot(*np.diff(points, axis=0).T)
        self.lengths = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = float(self.lengths[-1])
        headings = np.unwrap(np.arctan2(*np.diff(points, axis=0).T[::-1]))
        self._middles = (self.lengths[:-1] + self.lengths[1:]) / 2
        self._headings = headings

    def pose(self, s: float) -> tuple[float, float, float]:
        """x, y and heading at `s` metres; straight on beyond the ends."""
        heading = float(np.interp(s, self._middles, self._headings))
        inside = min(max(s, 0.0), self.length)
        x, y = (float(np.interp(inside, self.lengths, self.points[:, i])) for i in (0, 1))
        beyond = s - inside
        return x + beyond * np.cos(heading), y + beyond * np.sin(heading), heading


@dataclass(slots=True)
class Lane:
    """A lane of an edge, or the way of one lane through a junction to another (then `turn` is set).

    `stops` are the zebra crossings in its way: (where to stop, edge index). `junction` is where it ends, or that it
    crosses.
    """

    index: int
    path: Path
    junction: int
    approach: int
    edge: int
    lane: int = 0
    turn: str = ""
    next: list[int] = field(default_factory=list)
    stops: list[tuple[float, int]] = field(default_factory=list)


class Junction(NamedTuple):
    """`approaches` are (edge index, +1 if the edge leads here else -1); `half` the half extents in x and y."""

    centre: Float
    half: Float
    approaches: tuple[tuple[int, int], ...]


class Block(NamedTuple):
    """What lies between streets: `low` and `high` corners at the kerbs, `pavements` west, east, south, north in metres.

    `district` is urban, houses, towers or park.
    """

    low: Float
    high: Float
    pavements: tuple[float, float, float, float]
    district: str

    @property
    def inner(self) -> tuple[Float, Float]:
        """The corners of what the pavements leave."""
        west, east, south, north = self.pavements
        return self.low + [west, south], self.high - [east, north]


def tunnel_half(edge: Edge) -> float:
    """From the middle of a covered street to the walls."""
    return edge.street.half_m + edge.street.pavement_m


class Town:
    """One town, made from a seed.

    `tunnels` are the covered areas, low and high corners. `lanes_into` gives the lanes that lead to a lane,
    `lanes_beside` the ways through a junction that start where one does.
    """

    def __init__(self, seed: int, *, tunnel: bool) -> None:
        rng = stream(seed, "layout")
        columns, rows = (4, 3) if rng.random() < 0.5 else (3, 4)
        self.vertical = [_street(rng) for _ in range(columns)]
        self.horizontal = [_street(rng) for _ in range(rows)]
        self.x, self.y = _lines(rng, columns, tunnel), _lines(rng, rows, tunnel)
        self.size = np.array([self.x[-1], self.y[-1]]) + MARGIN_M
        self.junctions: list[Junction] = []
        self.edges = self._make_edges(rng, tunnel=tunnel)
        self._make_junctions()
        self.blocks = self._make_blocks(rng)
        self.tunnels = [_covered(edge, edge.tunnel) for edge in self.edges if edge.tunnel is not None]
        self.lanes: list[Lane] = []
        self._make_lanes()
        self.lanes_into: dict[int, list[int]] = {lane.index: [] for lane in self.lanes}
        self.lanes_beside: dict[int, list[int]] = {lane.index: [] for lane in self.lanes}
        for lane in self.lanes:
            for index in lane.next:
                self.lanes_into[index].append(lane.index)
                self.lanes_beside[index] += [other for other in lane.next if other != index and lane.turn == ""]

    def built_over(self, x: float, y: float) -> bool:
        """Whether a point lies under the building that a street runs under, or close to it."""
        return any((low - _BUILT_M < (x, y)).all() and (high + _BUILT_M > (x, y)).all() for low, high in self.tunnels)

    def _at(self, column: int, row: int) -> int:
        return row * len(self.x) + column

    def _make_edges(self, rng: np.random.Generator, *, tunnel: bool) -> list[Edge]:
        pairs = [(c, r, c + 1, r) for r in range(len(self.y)) for c in range(len(self.x) - 1)]
        pairs += [(c, r, c, r + 1) for r in range(len(self.y) - 1) for c in range(len(self.x))]
        spans = [self.x[c2] - self.x[c] + self.y[r2] - self.y[r] for c, r, c2, r2 in pairs]
        covered = int(np.argmax(np.array(spans) + rng.uniform(0, 1, len(spans)))) if tunnel else -1
        edges = []
        for index, (c, r, c2, r2) in enumerate(pairs):
            across = r == r2
            street = self.horizontal[r] if across else self.vertical[c]
            crossing = [self.vertical[c], self.vertical[c2]] if across else [self.horizontal[r], self.horizontal[r2]]
            clear = (crossing[0].half_m, crossing[1].half_m)
            length = spans[index]
            zebra = None
            if index == covered:
                middle = (clear[0] + length - clear[1]) / 2
                hole = (middle - 18.0, middle + 18.0)
            elif rng.random() < 0.6:
                zebra = float(rng.uniform(0.42, 0.58)) * length
            start, end = np.array([self.x[c], self.y[r]]), np.array([self.x[c2], self.y[r2]])
            ends = (self._at(c, r), self._at(c2, r2))
            edges.append(Edge(index, ends, start, end, street, clear, zebra, hole if index == covered else None))
        return edges

    def _make_junctions(self) -> None:
        for row, y in enumerate(self.y):
            for column, x in enumerate(self.x):
                here = self._at(column, row)
                approaches = [(e.index, 1 if e.junctions[1] == here else -1) for e in self.edges if here in e.junctions]
                half = np.array([self.vertical[column].half_m, self.horizontal[row].half_m])
                self.junctions.append(Junction(np.array([x, y]), half, tuple(approaches)))

    def _make_blocks(self, rng: np.random.Generator) -> list[Block]:
        """Those between the streets, then the four strips outside the ring, which have a pavement on one side only."""
        blocks: list[Block] = []
        x_low, x_high = (
            [x - s.half_m for x, s in zip(self.x, self.vertical, strict=True)],
            [x + s.half_m for x, s in zip(self.x, self.vertical, strict=True)],
        )
        y_low, y_high = (
            [y - s.half_m for y, s in zip(self.y, self.horizontal, strict=True)],
            [y + s.half_m for y, s in zip(self.y, self.horizontal, strict=True)],
        )
        districts = rng.choice(["urban", "houses", "towers", "park"], 64, p=[0.5, 0.2, 0.15, 0.15])
        for c in range(len(self.x) - 1):
            for r in range(len(self.y) - 1):
                low, high = np.array([x_high[c], y_high[r]]), np.array([x_low[c + 1], y_low[r + 1]])
                walks = (self.vertical[c], self.vertical[c + 1], self.horizontal[r], self.horizontal[r + 1])
                pavements = tuple(s.pavement_m for s in walks)
                blocks.append(Block(low, high, pavements, str(districts[len(blocks)])))  # type: ignore[arg-type]
        edge = self.size
        sides = (
            ((0.0, 0.0), (x_low[0], edge[1]), (0.0, self.vertical[0].pavement_m, 0.0, 0.0)),
            ((x_high[-1], 0.0), (edge[0], edge[1]), (self.vertical[-1].pavement_m, 0.0, 0.0, 0.0)),
            ((x_low[0], 0.0), (x_high[-1], y_low[0]), (0.0, 0.0, 0.0, self.horizontal[0].pavement_m)),
            ((x_low[0], y_high[-1]), (x_high[-1], edge[1]), (0.0, 0.0, self.horizontal[-1].pavement_m, 0.0)),
        )
        for low_corner, high_corner, pavements in sides:
            district = "urban" if rng.random() < 0.65 else "houses"
            blocks.append(Block(np.array(low_corner), np.array(high_corner), pavements, district))
        return blocks

    def _make_lanes(self) -> None:
        incoming: dict[tuple[int, int], list[Lane]] = {}
        outgoing: dict[tuple[int, int], list[Lane]] = {}
        for edge in self.edges:
            for forward in (True, False):
                lanes = [self._street_lane(edge, number, forward=forward) for number in range(edge.street.lanes)]
                first, last = edge.junctions if forward else edge.junctions[::-1]
                outgoing[first, edge.index] = incoming[last, edge.index] = lanes
        for number, junction in enumerate(self.junctions):
            for approach, (edge_in, _) in enumerate(junction.approaches):
                ways = [outgoing[number, edge] for edge, _ in junction.approaches if edge != edge_in]
                for way in ways:
                    self._connect(number, approach, incoming[number, edge_in], way)
                for lane in incoming[number, edge_in]:
                    if not lane.next:  # where its usual ways are missing, at a T or a corner, it may go any
                        for way in ways:
                            self._connect(number, approach, [lane], way)

    def _street_lane(self, edge: Edge, number: int, *, forward: bool) -> Lane:
        offset = -(edge.street.median_m / 2 + (number + 0.5) * LANE_M) * (1 if forward else -1)
        start, stop = edge.clear[0] + 1.2, edge.length - edge.clear[1] - STOP_LINE_M - 0.6
        if not forward:
            start, stop = edge.length - edge.clear[1] - 1.2, edge.clear[0] + STOP_LINE_M + 0.6
        path = Path(np.array([edge.at(start, offset), edge.at(stop, offset)]))
        here = edge.junctions[1] if forward else edge.junctions[0]
        approach = next(i for i, (e, _) in enumerate(self.junctions[here].approaches) if e == edge.index)
        lane = Lane(len(self.lanes), path, here, approach, edge.index, number)
        if edge.zebra is not None:
            lane.stops.append((abs(edge.zebra - start) - ZEBRA_M / 2 - 1.2, edge.index))
        self.lanes.append(lane)
        return lane

    def _connect(self, junction: int, approach: int, lanes_in: list[Lane], lanes_out: list[Lane]) -> None:
        """The ways from the lanes of one street into those of another: left from the left one, right from the right."""
        a, b = lanes_in[0].path.points, lanes_out[0].path.points
        d_in, d_out = a[-1] - a[0], b[-1] - b[0]
        bend = float(d_in[0] * d_out[1] - d_in[1] * d_out[0])
        straight = abs(bend) < 1e-6
        turn = STRAIGHT if straight else LEFT_TURN if bend > 0 else RIGHT_TURN
        if turn == STRAIGHT:
            shared = min(len(lanes_in), len(lanes_out))
            pairs = [(lanes_in[i], lanes_out[i]) for i in range(shared)]
            pairs += [(lane, lanes_out[-1]) for lane in lanes_in[shared:]]
        elif turn == LEFT_TURN:
            pairs = [(lanes_in[0], lanes_out[0])]
        else:
            pairs = [(lanes_in[-1], lanes_out[-1])]
        for lane_in, lane_out in pairs:
            start, end = lane_in.path.points[-1], lane_out.path.points[0]
            path = Path(_curve(start, end, d_in, d_out))
            way = Lane(len(self.lanes), path, junction, approach, lane_in.edge, lane_in.lane, turn, [lane_out.index])
            self.lanes.append(way)
            lane_in.next.append(way.index)


def _covered(edge: Edge, tunnel: tuple[float, float]) -> tuple[Float, Float]:
    half = tunnel_half(edge)
    corners = np.array([edge.at(tunnel[0], -half), edge.at(tunnel[1], half)])
    return corners.min(0), corners.max(0)


def _street(rng: np.random.Generator) -> Street:
    lanes = 2 if rng.random() < 0.4 else 1
    median = float(rng.choice([0.0, 0.0, 3.0])) if lanes == 2 else 0.0
    return Street(lanes, median, bool(rng.random() < 0.7), float(rng.uniform(3.2, 4.6)))


def _lines(rng: np.random.Generator, count: int, tunnel: bool) -> Float:  # noqa: FBT001
    spacing = rng.uniform(72, 104, count - 1)
    if tunnel:
        spacing[int(rng.integers(count - 1))] = 112.0
    return MARGIN_M + np.concatenate([[0.0], np.cumsum(spacing)])


def _curve(start: Float, end: Float, d_in: Float, d_out: Float) -> Float:
    """A smooth way through a junction: a cubic Bezier curve pulled towards where the two lanes' lines meet."""
    u, v = d_in / np.linalg.norm(d_in), d_out / np.linalg.norm(d_out)
    cross = u[0] * v[1] - u[1] * v[0]
    gap = end - start
    if abs(cross) < 1e-6:
        reach = float(gap @ u) * 0.45
        near, far = start + u * reach, end - v * reach
    else:
        corner = start + u * (gap[0] * v[1] - gap[1] * v[0]) / cross
        near, far = start + 0.7 * (corner - start), end + 0.7 * (corner - end)
    t = np.linspace(0, 1, 25)[:, None]
    curve: Float = (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * near + 3 * (1 - t) * t**2 * far + t**3 * end
    return curve
