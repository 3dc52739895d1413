"""Which towns are for what: the one table that keeps training, calibration and evaluation apart.

A seed of the world decides the layout of the town, its traffic and its palette, so drives from different seeds share
nothing but the way they are drawn. A range belongs to one purpose for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SEEDS: Final[Mapping[str, range]] = {
    "sample": range(1, 100),  # the drive that ships, and whatever anyone makes by hand
    "train": range(1000, 3000),  # what the stock detector learns from
    "validate": range(3000, 3500),  # looked at after every epoch
    "calibrate": range(4000, 4500),  # what activation ranges are measured on
    "evaluate": range(5000, 6000),  # what figures are reported on; nothing is chosen by it
}
