"""The ground from above, painted once per town: asphalt, markings, kerbs, paving, grass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from engines.world.scenario import stream
from engines.world.town import (
    CORNER_M,
    CROSSING_END_M,
    CROSSING_START_M,
    LANE_M,
    PARKING_M,
    STOP_LINE_M,
    ZEBRA_M,
    Block,
    Edge,
    Town,
)
from perception.messages import Float, Float32, Image

PX_PER_M: Final = 16
LEVELS: Final = 6
_SHIFT: Final = 4
_TILE: Final = 1024

_ASPHALT: Final = (94, 93, 91)
_CONCRETE: Final = (132, 138, 141)
_KERB: Final = (158, 162, 164)
_GUTTER: Final = (84, 83, 82)
_PAINT: Final = (206, 208, 208)
_YELLOW: Final = (86, 170, 204)
_GRASS: Final = (62, 96, 84)
_SOIL: Final = (58, 74, 88)
_YARD: Final = (112, 118, 122)


def paint(town: Town, seed: int) -> list[Image]:
    """The town's ground as a pyramid of images (H, W, 3) uint8 BGR, sRGB; each level is half the one before.

    Column x * PX_PER_M and row y * PX_PER_M of the first level show the point (x, y).
    """
    rng = stream(seed, "ground")
    canvas = _Canvas(town, rng)
    canvas.asphalt(rng)
    for block in town.blocks:
        canvas.block(block)
    for edge in town.edges:
        canvas.edge(edge, rng)
    levels = [canvas.image]
    for _ in range(LEVELS - 1):
        height, width = levels[-1].shape[:2]
        levels.append(
            np.asarray(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
        )
    return levels


def noise_tile(rng: np.random.Generator, octaves: Sequence[tuple[int, float]], size: int = _TILE) -> Float32:
    """Noise about 0 that repeats without a seam; `octaves` are (pixels per grain, amplitude)."""
    total = np.zeros((size, size), np.float32)
    for grain, amplitude in octaves:
        cells = rng.normal(0, amplitude, (size // grain, size // grain)).astype(np.float32)
        if grain > 1:
            padded = np.pad(cells, 2, mode="wrap")
            grown = cv2.resize(padded, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
            cells = np.asarray(grown, np.float32)[2 * grain : 2 * grain + size, 2 * grain : 2 * grain + size]
        total += cells
    return total


class _Canvas:
    def __init__(self, town: Town, rng: np.random.Generator) -> None:
        width, height = (np.ceil(town.size).astype(int)) * PX_PER_M
        self.image = np.empty((height, width, 3), np.uint8)
        self._town = town
        speckle = noise_tile(rng, ((1, 2.2), (2, 1.0), (8, 0.5), (64, 1.2), (256, 2.0)))
        rough = noise_tile(rng, ((1, 7.0), (2, 8.0), (4, 7.0), (16, 6.0), (128, 6.0)))
        self._asphalt = _tinted(_ASPHALT, speckle)
        self._paving = _tinted(_CONCRETE, speckle * 0.8 + _slabs(rng))
        self._grass = _tinted(_GRASS, rough)
        self._soil = _tinted(_SOIL, rough * 0.6)
        self._yard = _tinted(_YARD, speckle)

    def asphalt(self, rng: np.random.Generator) -> None:
        """Tile it all, with patches where the street was opened, cracks, and darker wheel tracks."""
        height, width = self.image.shape[:2]
        for y in range(0, height, _TILE):
            for x in range(0, width, _TILE):
                part = self.image[y : y + _TILE, x : x + _TILE]
                part[:] = self._asphalt[: part.shape[0], : part.shape[1]]
        for edge in self._town.edges:
            for _ in range(int(rng.integers(2, 6))):
                s, left = rng.uniform(8, edge.length - 16), rng.uniform(-1, 1) * (edge.street.half_m - 2)
                self._shade(
                    edge, (s, s + rng.uniform(1, 8)), (left, left + rng.uniform(0.6, 1.8)), rng.uniform(0.8, 1.14)
                )
            for _ in range(int(rng.integers(3, 9))):
                start = np.array([rng.uniform(5, edge.length - 10), rng.uniform(-1, 1) * edge.street.half_m * 0.9])
                steps = rng.normal(0, 0.35, (12, 2)) + [0.5, 0]
                points = np.array([edge.at(*(start + step)) for step in np.cumsum(steps, 0)])
                cv2.polylines(
                    self.image, [self._px(points)], isClosed=False, color=_GUTTER, lineType=cv2.LINE_AA, shift=_SHIFT
                )
            for _ in range(2):
                where = edge.at(rng.uniform(12, edge.length - 12), rng.uniform(-0.8, 0.8) * edge.street.half_m)
                self._disc(where, 0.36, (60, 60, 60))
                self._disc(where, 0.29, (84, 86, 88))
        for lane in self._town.lanes:
            start, end = lane.path.points[0], lane.path.points[-1]
            if lane.turn == "":
                edge = self._town.edges[lane.edge]
                span = sorted(float((p - edge.start) @ edge.along) for p in (start, end))
                left = float((start - edge.start) @ edge.left)
                for track in (-0.82, 0.82):
                    self._shade(edge, (span[0] - 6, span[1] + 6), (left + track - 0.3, left + track + 0.3), 0.94)

    def block(self, block: Block) -> None:
        """Pavement with kerbs around what is inside."""
        corner = 0.0 if 0.0 in block.pavements else CORNER_M
        self._rounded(block.low - 0.30, block.high + 0.30, corner + 0.3, _GUTTER)
        self._rounded(block.low, block.high, corner, _KERB)
        self._rounded(block.low + 0.16, block.high - 0.16, max(corner - 0.16, 0.0), self._paving)
        low, high = block.inner
        self._rounded(low, high, 0.0, {"park": self._grass, "houses": self._grass}.get(block.district, self._yard))
        if block.district == "park":
            middle = (low + high) / 2
            for across in ((high - low) * [0.5, 0.0] + [0, 1.3], (high - low) * [0.0, 0.5] + [1.3, 0]):
                self._rounded(middle - across, middle + across, 0.0, self._soil)

    def edge(self, edge: Edge, rng: np.random.Generator) -> None:
        """Lane lines, stop lines, crossings, arrows, bays."""
        street = edge.street
        first, last = edge.clear[0], edge.length - edge.clear[1]
        stop = (first + STOP_LINE_M, last - STOP_LINE_M)
        driven = street.half_m - (PARKING_M if street.parking else 0)
        if street.median_m:
            self._strip(edge, (stop[0], stop[1]), (-street.median_m / 2 + 0.3, street.median_m / 2 - 0.3), _KERB)
            self._strip(
                edge,
                (stop[0] + 0.16, stop[1] - 0.16),
                (-street.median_m / 2 + 0.46, street.median_m / 2 - 0.46),
                _GRASS,
            )
        elif street.lanes == 2:
            self._strip(edge, stop, (0.08, 0.2), _PAINT)
            self._strip(edge, stop, (-0.2, -0.08), _PAINT)
        elif rng.random() < 0.25:
            self._strip(edge, stop, (-0.07, 0.07), _YELLOW)
        else:
            self._dashes(edge, stop, 0.0, 3.0, 3.5)
        for sign in (-1, 1):
            if street.lanes == 2:
                near = stop[1] if sign < 0 else stop[0]
                self._dashes(edge, stop, sign * (street.median_m / 2 + LANE_M), 3.0, 4.5)
                self._strip(
                    edge, sorted((near, near + 14 * sign)), _around(sign * (street.median_m / 2 + LANE_M)), _PAINT
                )
            if street.parking:
                self._bays(edge, stop, sign * driven, sign * street.half_m)
            else:
                self._strip(edge, stop, _around(sign * (street.half_m - 0.35), 0.05), _PAINT)
        inner = street.median_m / 2 + 0.15
        self._strip(edge, (stop[1] - 0.2, stop[1] + 0.25), (-driven + 0.1, -inner), _PAINT)
        self._strip(edge, (stop[0] - 0.25, stop[0] + 0.2), (inner, driven - 0.1), _PAINT)
        self._zebra(edge, (first + CROSSING_START_M, first + CROSSING_END_M))
        self._zebra(edge, (last - CROSSING_END_M, last - CROSSING_START_M))
        if edge.zebra is not None:
            self._zebra(edge, (edge.zebra - ZEBRA_M / 2, edge.zebra + ZEBRA_M / 2))
        if street.lanes == 2:
            for k in range(2):
                offset = street.median_m / 2 + (k + 0.5) * LANE_M
                self._arrow(edge, stop[1] - 7, -offset, 1, k)
                self._arrow(edge, stop[0] + 7, offset, -1, k)

    def _bays(self, edge: Edge, span: tuple[float, float], inner: float, outer: float) -> None:
        free = (span[0] + 3, span[1] - 3)
        for start, end in _without(free, edge):
            self._dashes(edge, (start, end), inner, 1.0, 1.0, 0.05)
            for s in np.arange(start, end, 6.0):
                self._strip(edge, (s, s + 0.1), sorted((inner, outer)), _PAINT)

    def _zebra(self, edge: Edge, span: tuple[float, float]) -> None:
        half = edge.street.half_m - 0.35
        for left in np.arange(-half, half - 0.4, 1.05):
            if edge.street.median_m == 0 or abs(left + 0.25) > edge.street.median_m / 2 or edge.zebra is None:
                self._strip(edge, span, (left, left + 0.52), _PAINT)

    def _arrow(self, edge: Edge, s: float, left: float, sign: int, lane: int) -> None:
        """On the left lane straight and left, on the right one straight and right."""
        side = sign * (1 if lane == 0 else -1)
        shapes = [
            [(-2.2, -0.08), (1.0, -0.08), (1.0, 0.08), (-2.2, 0.08)],
            [(1.0, -0.3), (2.2, 0.0), (1.0, 0.3)],
            [(-0.9, 0.0), (0.1, 0.55 * side * sign), (0.25, 0.4 * side * sign), (-0.6, 0.0)],
            [(-0.25, 0.75 * side * sign), (0.4, 0.25 * side * sign), (0.55, 0.9 * side * sign)],
        ]
        for shape in shapes:
            points = np.array([edge.at(s + sign * x, left + sign * y) for x, y in shape])
            cv2.fillConvexPoly(self.image, self._px(points), _PAINT, cv2.LINE_AA, _SHIFT)

    def _dashes(
        self, edge: Edge, span: tuple[float, float], left: float, dash: float, gap: float, half: float = 0.07
    ) -> None:
        for s in np.arange(span[0] + gap, span[1] - dash, dash + gap):
            if edge.zebra is None or abs(s + dash / 2 - edge.zebra) > dash / 2 + 2.6:
                self._strip(edge, (s, s + dash), (left - half, left + half), _PAINT)

    def _strip(self, edge: Edge, along: Sequence[float], left: Sequence[float], colour: tuple[int, int, int]) -> None:
        corners = np.array(
            [edge.at(s, w) for s, w in zip((along[0], along[1], along[1], along[0]), np.repeat(left, 2), strict=True)]
        )
        cv2.fillConvexPoly(self.image, self._px(corners), colour, cv2.LINE_AA, _SHIFT)

    def _shade(self, edge: Edge, along: Sequence[float], left: Sequence[float], factor: float) -> None:
        corners = np.array([edge.at(along[0], left[0]), edge.at(along[1], left[1])]) * PX_PER_M
        (x0, y0), (x1, y1) = np.maximum(np.sort(corners.round().astype(int), axis=0), 0)
        part = self.image[y0:y1, x0:x1]
        cv2.convertScaleAbs(part, part, factor)

    def _disc(self, centre: Float, radius: float, colour: tuple[int, int, int]) -> None:
        cv2.circle(
            self.image,
            self._px(centre[None])[0].tolist(),
            round(radius * PX_PER_M * 16),
            colour,
            -1,
            cv2.LINE_AA,
            _SHIFT,
        )

    def _rounded(self, low: Float, high: Float, radius: float, fill: Image | tuple[int, int, int]) -> None:
        """A rectangle with round corners, in a colour or a repeating texture."""
        (x0, y0), (x1, y1) = (
            np.clip(np.round(p * PX_PER_M), 0, self.image.shape[1::-1]).astype(int) for p in (low, high)
        )
        part = self.image[y0:y1, x0:x1]
        r = round(radius * PX_PER_M)
        corners = [part[:r, :r], part[:r, -r:], part[-r:, :r], part[-r:, -r:]] if r > 0 else []
        before = [corner.copy() for corner in corners]
        if isinstance(fill, tuple):
            part[:] = fill
        else:
            for y in range(0, part.shape[0], _TILE):
                for x in range(0, part.shape[1], _TILE):
                    piece = part[y : y + _TILE, x : x + _TILE]
                    piece[:] = fill[: piece.shape[0], : piece.shape[1]]
        yy, xx = np.mgrid[:r, :r]
        cut = np.hypot(xx - r + 0.5, yy - r + 0.5) > r
        for corner, kept, beyond in zip(corners, before, (cut, cut[:, ::-1], cut[::-1], cut[::-1, ::-1]), strict=False):
            corner[beyond] = kept[beyond]

    def _px(self, points: Float) -> np.ndarray:
        return np.round((points * PX_PER_M - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _without(span: tuple[float, float], edge: Edge) -> list[tuple[float, float]]:
    """The parts of a span where one may park: not at a crossing, not in a tunnel."""
    if edge.tunnel is not None:
        return [
            part for part in ((span[0], edge.tunnel[0] - 4), (edge.tunnel[1] + 4, span[1])) if part[1] - part[0] > 7
        ]
    if edge.zebra is None:
        return [span]
    return [(span[0], edge.zebra - ZEBRA_M / 2 - 4), (edge.zebra + ZEBRA_M / 2 + 4, span[1])]


def parking_spans(edge: Edge) -> list[tuple[float, float]]:
    """Where the bays of an edge lie, in metres along it."""
    span = (edge.clear[0] + STOP_LINE_M + 3, edge.length - edge.clear[1] - STOP_LINE_M - 3)
    return _without(span, edge) if edge.street.parking else []


def _around(middle: float, half: float = 0.07) -> tuple[float, float]:
    return middle - half, middle + half


def _tinted(colour: tuple[int, int, int], noise: Float32) -> Image:
    return np.asarray(np.clip(np.array(colour, np.float32) + noise[..., None], 0, 255), np.uint8)


def _slabs(rng: np.random.Generator) -> Float32:
    """Paving stones of half a metre, each of its own shade, with dark joints."""
    side = PX_PER_M // 2
    count = _TILE // side
    shades = rng.normal(0, 3.5, (count, count)).astype(np.float32).repeat(side, 0).repeat(side, 1)
    shades[::side] -= 16
    shades[:, ::side] -= 16
    return shades
