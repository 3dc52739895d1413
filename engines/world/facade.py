"""Walls with windows: one small picture per style, repeated in cells of one window by one storey."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from perception.messages import Float32, Int32

CELL_PX: Final = 64
LEVELS: Final = 7
"""Down to a single texel."""

BLANK, CLASSIC, PAIR, RIBBON, CURTAIN, SMALL, SHOP, HOUSE, BALCONY = range(9)
_STYLES: Final = 9


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
                picture = np.asarray(
                    cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32
                ).reshape(side, side, 3)
    return np.ascontiguousarray(np.concatenate(parts).T, np.float32), starts


_PANES: Final = {
    # left, right, bottom, top of each window, in parts of the cell; vertical and horizontal bars; with a sill
    BLANK: (),
    CLASSIC: ((0.3, 0.7, 0.24, 0.8, 1, 1, True),),
    PAIR: ((0.12, 0.46, 0.26, 0.78, 0, 0, True), (0.54, 0.88, 0.26, 0.78, 0, 0, True)),
    RIBBON: ((0.0, 1.0, 0.34, 0.82, 1, 0, False),),
    CURTAIN: ((0.0, 1.0, 0.0, 1.0, 1, 1, False),),
    SMALL: ((0.33, 0.67, 0.3, 0.74, 1, 1, True),),
    SHOP: ((0.05, 0.95, 0.1, 0.72, 2, 0, False),),
    HOUSE: ((0.32, 0.68, 0.3, 0.76, 1, 1, True),),
    BALCONY: ((0.2, 0.8, 0.06, 0.8, 1, 0, True),),
}


def _picture(style: int) -> Float32:
    """One cell (CELL_PX, CELL_PX, 3), first row at the bottom."""
    rng = np.random.Generator(np.random.PCG64(style))
    cell = np.zeros((CELL_PX, CELL_PX, 3), np.float32)
    cell[..., 0] = 1.0
    if style == SMALL:
        _bricks(cell)
    cell[..., 0] += rng.normal(0, 0.02, cell.shape[:2])
    if style == SHOP:
        cell[_px(0.74) :, :, 0] *= 0.55
    for left, right, bottom, top, upright, across, sill in _PANES[style]:
        _window(cell, left, right, bottom, top, bars=(upright, across), sill=sill)
    _trim(cell, style)
    return cell


def _trim(cell: Float32, style: int) -> None:
    """What is before and beside the windows: ledges, panels, shutters, balconies."""
    if style == CLASSIC:
        cell[_px(0.88) : _px(0.93), :, 0] *= 1.12
    elif style == RIBBON:
        cell[: _px(0.04), :, 0] *= 0.8
    elif style == CURTAIN:
        cell[: _px(0.16), :, 1] *= 0.35
    elif style == HOUSE:
        for left, right in ((0.17, 0.3), (0.7, 0.83)):
            cell[_px(0.3) : _px(0.76), _px(left) : _px(right), 0] = 0.42
            cell[_px(0.3) : _px(0.76) : 4, _px(left) : _px(right), 0] = 0.3
    elif style == BALCONY:
        cell[_px(0.06) : _px(0.38), _px(0.1) : _px(0.9), 0] = 0.62
        cell[_px(0.06) : _px(0.38), _px(0.1) : _px(0.9), 1] *= 0.25
        cell[_px(0.0) : _px(0.06), _px(0.06) : _px(0.94), 0] = 0.5


def _px(part: float) -> int:
    return round(part * CELL_PX)


def _bricks(cell: Float32) -> None:
    height, width = CELL_PX // 8, CELL_PX // 4
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
