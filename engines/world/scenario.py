"""The conditions that a world can have, and the random numbers that make it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from perception.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of drive.

    `light` is day, low_sun, dusk or night; `weather` clear, rain or fog. With `tunnel` the route turns a corner
    and leads through one; with `crossing` people cross in front of the vehicle first. `vehicles` drive and
    `pedestrians` walk in the whole town; `mix` is how much of the traffic cars, trucks, buses, motorcycles and bicycles
    make up, in this order; `description` is for people.
    """

    name: str
    description: str
    light: str = "day"
    weather: str = "clear"
    tunnel: bool = False
    crossing: bool = False
    vehicles: int = 46
    pedestrians: int = 110
    mix: tuple[float, float, float, float, float] = (0.60, 0.11, 0.09, 0.09, 0.11)


SCENARIOS: Final = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("day", "a bright day"),
            Scenario("low_sun", "low sun, long shadows, glare", light="low_sun"),
            Scenario("dusk", "after sunset, lamps and windows come on", light="dusk"),
            Scenario("night", "street lamps and headlights", light="night", vehicles=40, pedestrians=80),
            Scenario("tunnel", "a day, through an underpass and out again", tunnel=True),
            Scenario("rain", "overcast and wet, drops on the lenses", weather="rain", pedestrians=80),
            Scenario("night_rain", "lamps on a wet road", light="night", weather="rain", vehicles=40, pedestrians=60),
            Scenario("fog", "grey, and little to see beyond 60 m", weather="fog", pedestrians=80),
            Scenario("city", "the sample drive: people crossing, a turn, an underpass", tunnel=True, crossing=True),
        )
    }
)
"""The scenarios by name."""


def named(name: str) -> Scenario:
    """The scenario of this name. Raises `ConfigError` if there is none."""
    if name not in SCENARIOS:
        raise ConfigError(f"scenario {name!r} does not exist; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The random numbers for one purpose: independent of all other purposes, and of the order of their use."""
    keys = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))
