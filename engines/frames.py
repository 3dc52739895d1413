"""Frames of drives with what is known about them: for calibration and for validation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engines.accuracy import SIZES, TrueBoxes
from engines.annotations import Annotations
from engines.coverage import Tags
from perception.clock import SteppedClock
from perception.config import SyncConfig
from perception.errors import DriveError
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Frame


class KnownFrame(NamedTuple):
    """A frame, its tags, and the boxes in it where the drive has them."""

    frame: Frame
    tags: Tags
    truth: TrueBoxes | None


def cameras(drives: Sequence[Path], rig: Path | None) -> dict[str, tuple[int, int]]:
    """The cameras of all drives by name, with the (width, height) of their images.

    Raises `DriveError` where two drives have different cameras of one name.
    """
    found: dict[str, tuple[int, int]] = {}
    for path in drives:
        for name, camera in open_drive(path, rig).rig.items():
            size = (camera.width, camera.height)
            if found.setdefault(name, size) != size:
                raise DriveError(f"{path}: its {name} has {size[0]}x{size[1]} pixels, in a drive before {found[name]}")
    return found


def frames(
    path: Path,
    rig: Path | None,
    given: Mapping[str, set[str]],
    every: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[KnownFrame]:
    """Yield the frames of every so many-th frame set, in the drive's own order and always the same.

    Tags come from the drive; of those `given`, only keys that it has nowhere are taken. Images that cannot be decoded
    are left out. A recording damaged on the way ends there. `tell` is given a line for what was wrong with the drive.
    """
    drive = open_drive(path, rig)
    annotations = Annotations(path, drive)
    lacking = {key: values for key, values in given.items() if key not in annotations.tag_keys}
    source = Replay(drive, SteppedClock(), SyncConfig(), threads=1)
    with closing(source):
        for frame_set in source.frame_sets():
            if frame_set.tick % every:
                continue
            for frame in frame_set.frames:
                if not frame.decoded:
                    continue
                truth = annotations.boxes(frame.camera, frame.capture_ns, frame.map_from_base)
                tags = {**lacking, **annotations.tags(frame.capture_ns)}
                tags["camera"] = {frame.camera}
                tags["size"] = _sizes(truth)
                yield KnownFrame(frame, tags, truth)
        for fault in source.faults():
            tell(f"fault: {fault}")


def to_stderr(line: str) -> None:
    """Tell what is wrong and ends nothing."""
    sys.stderr.write(f"{line}\n")


def _sizes(truth: TrueBoxes | None) -> set[str]:
    if truth is None:
        return set()
    sides = truth.boxes[~truth.ignored, 2:] - truth.boxes[~truth.ignored, :2]
    areas = np.prod(sides, axis=1)
    return {name for name, (low, high) in SIZES.items() if ((areas >= low) & (areas < high)).any()}
