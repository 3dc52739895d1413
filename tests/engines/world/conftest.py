"""Worlds that several tests look at, made once; cameras of a quarter of the usual size."""

from __future__ import annotations

import pytest

from engines.world import World, surround_rig


@pytest.fixture(scope="session")
def day() -> World:
    """A bright day, two seconds in."""
    world = World(9, "day", surround_rig(320, 192))
    world.step(2.0)
    return world
