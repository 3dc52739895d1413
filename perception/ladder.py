"""The ladder of a config, worked out for a rig: which camera looks how often, with which detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from perception.config import Config, DetectorConfig, RungConfig
from perception.errors import ConfigError
from perception.governor import Rung, everything
from perception.messages import Camera, Rig

FACINGS: Final = ("front", "side", "rear")
_FRONT_DEG: Final = 60.0
_REAR_DEG: Final = 120.0


class Ladder(NamedTuple):
    """The rungs from everything down, and the detector of each."""

    rungs: tuple[Rung, ...]
    detectors: tuple[DetectorConfig, ...]


def build(config: Config, rig: Rig) -> Ladder:
    """Work out the ladder; raises `ConfigError` for a camera that the rig does not have.

    Cameras go in the order of their importance: how nearly they face forward. A rung on which nobody would look, as it
    names only directions in which no camera of this rig faces, has the cameras of the one above; and a rung on which
    all is as on the one above is left out.
    """
    ahead = sorted(rig, key=lambda name: abs(_azimuth_deg(rig[name])))
    rungs, detectors = [everything(ahead)], [config.detector]
    for wanted in config.enforcement.ladder:
        rung = Rung(wanted.name, _every(wanted, rig, ahead) or rungs[-1].every, wanted.alarm)
        detector = _detector(wanted, config.detector)
        if (rung.every, rung.alarm, detector) != (rungs[-1].every, rungs[-1].alarm, detectors[-1]):
            rungs.append(rung)
            detectors.append(detector)
    return Ladder(tuple(rungs), tuple(detectors))


def facing(camera: Camera) -> str:
    """Whether a camera looks to the ``front`` (within 60 degrees), to the ``rear``, or to a ``side``."""
    azimuth_deg = abs(_azimuth_deg(camera))
    return FACINGS[0] if azimuth_deg <= _FRONT_DEG else FACINGS[2] if azimuth_deg >= _REAR_DEG else FACINGS[1]


def _azimuth_deg(camera: Camera) -> float:
    """Of the optical axis, about z of `base_link`: 0 is forward, 90 left."""
    x, y, _ = camera.base_from_camera.rotation[:, 2].tolist()
    return round(math.degrees(math.atan2(y, x)), 3)


def _every(wanted: RungConfig, rig: Rig, ahead: Sequence[str]) -> dict[str, int]:
    for name in (*(wanted.cameras or ()), *wanted.every):
        if name not in rig and name not in FACINGS:
            known = ", ".join((*rig, *FACINGS))
            raise ConfigError(f"enforcement.ladder: {wanted.name!r}: no camera {name!r} in this rig; known: {known}")
    chosen = (*rig, *FACINGS) if wanted.cameras is None else wanted.cameras
    looking = [name for name in ahead if name in chosen or facing(rig[name]) in chosen]
    return {name: wanted.every.get(name, wanted.every.get(facing(rig[name]), 1)) for name in looking}


def _detector(wanted: RungConfig, usual: DetectorConfig) -> DetectorConfig:
    if wanted.detector is None:
        return usual
    return usual.model_copy(update={key: value for key, value in wanted.detector if value is not None})
