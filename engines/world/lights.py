"""Traffic lights."""

from __future__ import annotations

from typing import Final

import numpy as np

STEP_S: Final = 0.1
"""The step of all traffic."""
GREEN_S: Final = 7.0
WALK_S: Final = 7.0
_CLEARANCE_S: Final = 3.0


class Lights:
    """The lights of one junction: one approach at a time, then everybody on foot."""

    def __init__(self, approaches: int, rng: np.random.Generator) -> None:
        self.approaches = approaches
        self.phase = int(rng.integers(approaches + 1))
        self.age_s = float(rng.uniform(0, GREEN_S))

    def step(self, wanted: int | None) -> None:
        """Advance; an approach that is `wanted` (the ego vehicle's) gets its turn early."""
        self.age_s += STEP_S
        green = WALK_S if self.phase == self.approaches else GREEN_S
        if wanted is not None and self.age_s < green:
            if self.phase == wanted:
                self.age_s = min(self.age_s, green - 3.0)
            elif self.phase != self.approaches and self.age_s > 2.0:
                self.age_s = green
        if self.age_s >= green + _CLEARANCE_S:
            self.age_s = 0.0
            self.phase = (self.phase + 1) % (self.approaches + 1) if wanted is None else wanted

    def colour(self, approach: int) -> str:
        """What an approach sees."""
        if self.approaches < 3:
            return "green"
        if self.phase != approach:
            return "red"
        return "green" if self.age_s < GREEN_S else "amber" if self.age_s < GREEN_S + 1.8 else "red"

    def walk(self) -> bool:
        """Whether those on foot may set out."""
        return self.phase == self.approaches and self.age_s < WALK_S - 2.0
