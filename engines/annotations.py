"""What a drive says of its frames besides what the pipeline reads: the boxes to be found, and tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engines.accuracy import TrueBoxes
from perception.ingest.drive import Drive
from perception.messages import Transform
from perception.truth import RigView, TruthTimeline


class Annotations:
    """Ground truth of one drive, as its cameras can see it."""

    def __init__(self, drive: Drive) -> None:
        self._timeline = TruthTimeline(drive.truth())
        self._view = RigView(drive.rig)

    def boxes(self, camera: str, capture_ns: int, map_from_base: Transform | None) -> TrueBoxes | None:
        """The boxes in one image; None where the drive has no ground truth for that time."""
        truth = self._timeline.at(capture_ns, map_from_base)
        if truth is None:
            return None
        seen = self._view.of_camera(camera, truth)
        inside = np.flatnonzero(np.isfinite(seen.boxes).all(axis=1))
        return TrueBoxes(seen.boxes[inside].astype(np.float32), truth.labels[inside], ~seen.visible[inside])


def read_tags(path: Path) -> Mapping[str, set[str]]:
    """The tags of a drive."""
    return {}
