"""The coverage gate: which conditions calibration frames have to show before a model may be quantised on them.

Activation ranges measured on day frames may clip what a night frame needs, and nothing says so until the car is in the
dark. So each frame carries tags, a profile says which tags must be there how often, and a gap is refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated

from pydantic import Field

from perception.config import Section
from perception.errors import ConfigError

Tags = Mapping[str, AbstractSet[str]]
"""Of one frame: for example ``{"camera": {"CAM_FRONT"}, "light": {"night"}, "size": {"small", "large"}}``."""

EVERY_CAMERA = "every"


class Requirement(Section):
    """So many frames for every combination of these values."""

    frames: Annotated[int, Field(gt=0)]
    tags: Mapping[str, tuple[str, ...]] = Field(description="values by key; camera: [every] stands for the whole rig")


class Profile(Section):
    """configs/engines/coverage.yaml: what calibration has to cover."""

    require: tuple[Requirement, ...]


class Coverage:
    """Counts frames against a profile as they are taken.

    `cameras` are those of the rigs; `allowed` are tag values whose gaps are let pass, and recorded.
    """

    def __init__(self, profile: Profile, cameras: Sequence[str], allowed: Sequence[str]) -> None:
        self._wanted = {
            combination: requirement.frames
            for requirement in profile.require
            for combination in _combinations(requirement, cameras)
        }
        self._found = dict.fromkeys(self._wanted, 0)
        known = {value for combination in self._wanted for _, value in combination}
        for value in allowed:
            if value not in known:
                raise ConfigError(f"--allow-gap {value}: no tag of the profile; it has: {', '.join(sorted(known))}")
        self._allowed = set(allowed)

    def add(self, tags: Tags) -> None:
        """Count one frame."""
        for combination in self._found:
            if all(value in tags.get(key, ()) for key, value in combination):
                self._found[combination] += 1

    def table(self) -> dict[str, tuple[int, int]]:
        """Frames found and wanted, by combination."""
        return {_name(c): (self._found[c], self._wanted[c]) for c in self._wanted}

    def gaps(self) -> list[str]:
        """What is missing and not allowed to be, a line each."""
        return [line for combination, line in self._missing() if not self._is_allowed(combination)]

    def allowed_gaps(self) -> list[str]:
        """What is missing and was let pass."""
        return [line for combination, line in self._missing() if self._is_allowed(combination)]

    def check(self) -> None:
        """Raise `ConfigError` with the list of what is missing."""
        gaps = self.gaps()
        if gaps:
            raise ConfigError(
                f"calibration does not cover the profile: {'; '.join(gaps)}. Calibrate on drives that show it, "
                "or let a tag pass with --allow-gap TAG, which the manifest will say"
            )

    def _missing(self) -> Iterator[tuple[tuple[tuple[str, str], ...], str]]:
        for combination, wanted in self._wanted.items():
            found = self._found[combination]
            if found < wanted:
                yield combination, f"{_name(combination)}: {found} of {wanted} frames"

    def _is_allowed(self, combination: tuple[tuple[str, str], ...]) -> bool:
        return any(value in self._allowed for _, value in combination)


def parse_tags(text: str) -> dict[str, set[str]]:
    """Parse ``light=day,weather=clear`` of ``--tags``."""
    tags: dict[str, set[str]] = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not (separator and key.strip() and value.strip()):
            raise ConfigError(f"--tags {text!r}: expected KEY=VALUE,..., such as light=day,weather=clear")
        tags.setdefault(key.strip(), set()).add(value.strip())
    return tags


def sorted_tags(tags: Tags) -> dict[str, tuple[str, ...]]:
    """Tags as manifests tell them: the same however they were given."""
    return {key: tuple(sorted(values)) for key, values in sorted(tags.items())}


def _combinations(requirement: Requirement, cameras: Sequence[str]) -> Iterator[tuple[tuple[str, str], ...]]:
    choices = [
        [(key, value) for value in (cameras if key == "camera" and values == (EVERY_CAMERA,) else values)]
        for key, values in requirement.tags.items()
    ]
    return itertools.product(*choices)


def _name(combination: tuple[tuple[str, str], ...]) -> str:
    return " + ".join(value for _, value in combination)
