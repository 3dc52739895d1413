"""The tree of fixed transforms on the vehicle, as /tf gives it."""

from __future__ import annotations

from typing import Final

import numpy as np

from perception.geometry import IDENTITY, compose
from perception.messages import Transform

BASE: Final = "base_link"
FIXED: Final = "map"
_MAX_DEPTH: Final = 32
_MAX_FRAMES: Final = 1_000
_SAME_M: Final = 1e-4
_SAME_RAD: Final = 1e-4


class TransformTree:
    """Where the sensors are on the vehicle; the first transform to each frame is kept."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Transform]] = {}

    def copy(self) -> TransformTree:
        """A tree of its own with the same transforms."""
        tree = TransformTree()
        tree._parents = dict(self._parents)
        return tree

    def add(self, parent: str, child: str, parent_from_child: Transform) -> bool:
        """Take in a transform; False where it differs from the first one to this child."""
        if child not in self._parents:
            if len(self._parents) < _MAX_FRAMES:
                self._parents[child] = (parent, parent_from_child)
            return True
        known_parent, known = self._parents[child]
        return known_parent == parent and _same(known, parent_from_child)

    def base_from(self, frame: str) -> Transform | None:
        """`base_from_frame`, along the chain of parents; None where it does not lead to `base_link`."""
        top, top_from_frame = self._climb(frame)
        return top_from_frame if top == BASE else None

    def top_of(self, frame: str) -> str:
        """Where the chain of parents ends: `base_link`, or the frame to which a transform is missing."""
        return self._climb(frame)[0]

    def _climb(self, frame: str) -> tuple[str, Transform]:
        top, top_from_frame = frame, IDENTITY
        for _ in range(_MAX_DEPTH):
            if top == BASE or top not in self._parents:
                break
            top, parent_from_top = self._parents[top]
            top_from_frame = compose(parent_from_top, top_from_frame)
        return top, top_from_frame


def _same(a: Transform, b: Transform) -> bool:
    # for small angles the rotations' difference has sqrt(2) times the angle as its norm
    turned = float(np.linalg.norm(a.rotation - b.rotation)) / np.sqrt(2)
    moved = float(np.linalg.norm(a.translation - b.translation))
    return bool(turned <= _SAME_RAD and moved <= _SAME_M)
