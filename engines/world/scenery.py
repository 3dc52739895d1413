"""All that stands still in a town."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.world import buildings, furniture, greenery
from engines.world.furniture import Signal
from engines.world.mesh import Mesh, join
from engines.world.scenario import stream
from engines.world.town import Block, Town
from perception.messages import Float


@dataclass(slots=True)
class Scenery:
    """What stands in a town: one mesh; where its lamps hang, (n, 2); its traffic lights."""

    mesh: Mesh
    lamps: Float
    signals: list[Signal]


def build(town: Town, seed: int) -> Scenery:
    """Everything that stands still."""
    rng = stream(seed, "scenery")
    parts: list[Mesh] = []
    for block in town.blocks:
        _fill(parts, block, town, rng)
    for edge in town.edges:
        if edge.tunnel is not None:
            buildings.underpass(parts, edge, rng)
    lamps = furniture.lamps(parts, town)
    for edge in town.edges:
        furniture.roadside(parts, edge, rng)
    signals = furniture.signals(parts, town)
    return Scenery(join(parts), lamps, signals)


def _fill(parts: list[Mesh], block: Block, town: Town, rng: np.random.Generator) -> None:
    low, high = block.inner
    outside = 0.0 in block.pavements
    if outside:
        along = int(high[1] - low[1] > high[0] - low[0])
        front = int(np.flatnonzero(block.pavements)[0])
        buildings.row(parts, block, low, high, along=along, front_high=front % 2 == 1, town=town, rng=rng)
    elif block.district == "park":
        greenery.park(parts, low, high, town, rng)
    elif block.district == "towers":
        buildings.towers(parts, low, high, town, rng)
    else:
        depth = 12.0
        buildings.row(
            parts, block, low, np.array([high[0], low[1] + depth]), along=0, front_high=False, town=town, rng=rng
        )
        buildings.row(
            parts, block, np.array([low[0], high[1] - depth]), high, along=0, front_high=True, town=town, rng=rng
        )
        inner_low, inner_high = low + [0, depth + 3], high - [0, depth + 3]
        if inner_high[1] - inner_low[1] > 10:
            buildings.row(
                parts,
                block,
                inner_low,
                np.array([low[0] + depth, inner_high[1]]),
                along=1,
                front_high=False,
                town=town,
                rng=rng,
            )
            buildings.row(
                parts,
                block,
                np.array([high[0] - depth, inner_low[1]]),
                inner_high,
                along=1,
                front_high=True,
                town=town,
                rng=rng,
            )
