"""Colours: one per class, told apart with colour-blind eyes too (after Okabe and Ito 2008)."""

from __future__ import annotations

from typing import Final

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

CLASS_COLOURS: Final[tuple[Colour, ...]] = (
    (86, 180, 233),  # car
    (230, 159, 0),  # truck
    (204, 121, 167),  # bus
    (234, 92, 52),  # motorcycle
    (63, 199, 154),  # bicycle
    (240, 228, 66),  # pedestrian
)
