"""Walls with windows: one small picture per style, repeated in cells of one window by one storey."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from perception.messages import Float32, Int32

CELL_PX: Final = 64
LEVELS: Final = 7
"""Down to a single texel."""

BLANK, CLASSIC, PAIR, RIBBON, CURTAIN, SMALL, SHOP, HOUSE, BALCONY, TILES = range(10)
_STYLES: Final = 10


def atlas() -> tuple[Float32, Int32]:
    """The texels of all styles at all levels, and where each (style, level) starts.

    Texels are planar (3, n): how bright the wall is, how much of it is glass, how much of it is frame.
    """
    parts, starts, at = [], np.zeros((_STYLES, LEVELS), np.int32), 0
    for style in range(_STYLES):
        picture = _picture(style)
        for level in range(LEVELS):
            starts[style, level] = at
            parts.append(picture.reshape(-1, 3))
            at += len(parts[-1])
            if level + 1 < LEVELS:
                side = picture.shape[0] // 2
                picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32).reshape(side, side, 3)
    return np.ascontiguousarray(np.concatenate(parts).T, np.float32), starts


def _picture(style: int) -> Float32:
    """One cell (CELL_PX, CELL_PX, 3), first row at the bottom."""
    rng = np.random.Generator(np.random.PCG64(style))
    cell = np.zeros((CELL_PX, CELL_PX, 3), np.float32)
    cell[..., 0] = 1.0
    if style in (SMALL, TILES):
        _bricks(cell, 4 if style == SMALL else 8)
    cell[..., 0] += rng.normal(0, 0.02, cell.shape[:2])
    if style == CLASSIC:
        _window(cell, 0.3, 0.7, 0.24, 0.8, bars=(1, 1))
        cell[_px(0.88) : _px(0.93), :, 0] *= 1.12
    elif style == PAIR:
        _window(cell, 0.12, 0.46, 0.26, 0.78, bars=(0, 0))
        _window(cell, 0.54, 0.88, 0.26, 0.78, bars=(0, 0))
    elif style == RIBBON:
        _window(cell, 0.0, 1.0, 0.34, 0.82, bars=(1, 0), sill=False)
        cell[: _px(0.04), :, 0] *= 0.8
    elif style == CURTAIN:
        _window(cell, 0.0, 1.0, 0.0, 1.0, bars=(1, 1), sill=False)
        cell[: _px(0.16), :, 1] *= 0.35
    elif style == SMALL:
        _window(cell, 0.33, 0.67, 0.3, 0.74, bars=(1, 1))
    elif style == SHOP:
        cell[_px(0.74) :, :, 0] *= 0.55
        _window(cell, 0.05, 0.95, 0.1, 0.72, bars=(2, 0), sill=False)
    elif style == HOUSE:
        _window(cell, 0.32, 0.68, 0.3, 0.76, bars=(1, 1))
        for left, right in ((0.17, 0.3), (0.7, 0.83)):
            cell[_px(0.3) : _px(0.76), _px(left) : _px(right), 0] = 0.42
            cell[_px(0.3) : _px(0.76) : 4, _px(left) : _px(right), 0] = 0.3
    elif style == BALCONY:
        _window(cell, 0.2, 0.8, 0.06, 0.8, bars=(1, 0))
        cell[_px(0.06) : _px(0.38), _px(0.1) : _px(0.9), 0] = 0.62
        cell[_px(0.06) : _px(0.38), _px(0.1) : _px(0.9), 1] *= 0.25
        cell[_px(0.0) : _px(0.06), _px(0.06) : _px(0.94), 0] = 0.5
    return cell


def _px(part: float) -> int:
    return round(part * CELL_PX)


def _bricks(cell: Float32, courses: int) -> None:
    height, width = CELL_PX // (courses * 2), CELL_PX // courses
    for row in range(0, CELL_PX, height):
        cell[row, :, 0] = 0.82
        offset = (row // height % 2) * width // 2
        cell[row : row + height, offset::width, 0] = 0.82


def _window(
    cell: Float32, left: float, right: float, bottom: float, top: float, *, bars: tuple[int, int], sill: bool = True
) -> None:
    x0, x1, y0, y1 = _px(left), _px(right), _px(bottom), _px(top)
    cell[y0:y1, x0:x1] = (1.0, 0.0, 1.0)
    edge = 2
    cell[y0 + edge : y1 - edge, x0 + edge : x1 - edge] = (0.0, 1.0, 0.0)
    for i in range(bars[0]):
        x = x0 + (x1 - x0) * (i + 1) // (bars[0] + 1)
        cell[y0:y1, x - 1 : x + 1] = (1.0, 0.0, 1.0)
    for i in range(bars[1]):
        y = y0 + (y1 - y0) * (i + 2) // (bars[1] + 2)
        cell[y - 1 : y + 1, x0:x1] = (1.0, 0.0, 1.0)
    if sill:
        cell[y1 - edge - 3 : y1 - edge, x0 + edge : x1 - edge, 1] *= 0.6  # the lintel's shadow on the glass
        cell[max(y0 - 3, 0) : y0, max(x0 - 2, 0) : x1 + 2, 0] = 1.15
        cell[max(y0 - 6, 0) : max(y0 - 3, 0), max(x0 - 2, 0) : x1 + 2, 0] *= 0.75
