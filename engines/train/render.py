"""Labelled images from the world, kept in a cache so that training starts at once the next time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from rich.progress import track

from engines.splits import SEEDS
from engines.train import dataset
from engines.train.dataset import Example
from engines.train.samples import Labels
from engines.world import SCENARIOS, Objects, World
from engines.world.scenario import Scenario
from perception import geometry
from perception.messages import CLASSES, Camera, Truth

_STEP_S: Final = 1.5  # between images of one camera: far enough for another view, near enough to share the town
_LEAST_VISIBILITY: Final = 0.25
_NEAR_M: Final = 50.0
_RARE: Final = tuple(CLASSES.index(name) for name in ("truck", "bus", "motorcycle", "bicycle"))
_WORTH_RARE: Final = 1.0
_WORTH_COMMON: Final = 0.4
_WORTH_EMPTY: Final = 0.15


class Shoot(NamedTuple):
    """One town, one scenario, so many ticks of all cameras; `busy` towns are for learning."""

    seed: int
    scenario: str
    ticks: int
    busy: bool

    @property
    def file_name(self) -> str:
        """Of the cached examples."""
        return f"{self.seed}-{self.scenario}-{'busy-' if self.busy else ''}{self.ticks}.npz"


def plan(split: str, shoots: int, ticks: int) -> list[Shoot]:
    """The first seeds of a split, the scenarios in turn."""
    names = tuple(SCENARIOS)
    busy = split == "train"
    return [Shoot(seed, names[i % len(names)], ticks, busy) for i, seed in enumerate(SEEDS[split][:shoots])]


def examples(shoots: Sequence[Shoot], cache: Path, processes: int, title: str) -> list[Example]:
    """Render what is not in the cache, and load it all, in the order of `shoots`."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [shoot for shoot in shoots if not (cache / shoot.file_name).is_file()]
    if missing:
        # Not forked: OpenCV's and PyTorch's threads do not survive that, and what they held stays locked.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_render_to, cache, shoot) for shoot in missing]
            for job in track(jobs, f"{title}: drawing"):
                job.result()
    return [example for shoot in shoots for example in dataset.load(cache / shoot.file_name)]


def _render_to(cache: Path, shoot: Shoot) -> None:
    cv2.setNumThreads(1)
    dataset.save(cache / shoot.file_name, render(shoot))


def render(shoot: Shoot) -> list[Example]:
    """The examples of one shoot."""
    scenario = SCENARIOS[shoot.scenario]
    world = World(shoot.seed, _busy(scenario) if shoot.busy else scenario)
    rng = np.random.default_rng(shoot.seed)
    found = []
    for tick in range(shoot.ticks):
        world.step(tick * _STEP_S)
        truth = world.truth()
        for camera in world.rig:
            if rng.random() > _worth(world.rig[camera], truth):
                continue
            view = world.render(camera)
            found.append(Example(dataset.encode(view.image), _labels(view.objects, world.rig[camera])))
    return found


def _busy(scenario: Scenario) -> Scenario:
    """A rush hour in which what is rare is as common as cars are: an image costs the same, and teaches more of it."""
    return replace(scenario, vehicles=100, pedestrians=180, mix=(0.05, 0.23, 0.20, 0.26, 0.26))


def _worth(camera: Camera, truth: Truth) -> float:
    """How likely an image is drawn, by what stands before the camera: drawing costs more than moving the town on."""
    points = geometry.apply(geometry.inverse(camera.base_from_camera), truth.positions)
    pixels, depths = geometry.project(camera, points)
    inside = ((pixels > 0) & (pixels < (camera.width, camera.height))).all(axis=1)
    near = truth.labels[inside & (depths > 0) & (depths < _NEAR_M)]
    return _WORTH_RARE if np.isin(near, _RARE).any() else _WORTH_COMMON if len(near) else _WORTH_EMPTY


def _labels(objects: Objects, camera: Camera) -> Labels:
    """Boxes are around the whole object: that is what tells where it stands, also when something hides its wheels."""
    positions = objects.positions_camera
    depths = np.maximum(positions[:, 2], 0.5)  # the centre of something beside the camera can lie behind it
    k = camera.intrinsics
    centres = positions[:, :2] / depths[:, None] * (k[0, 0], k[1, 1]) + k[:2, 2]
    return Labels(
        boxes=objects.boxes.astype(np.float32),
        labels=objects.labels.astype(np.int32),
        visibility=objects.visibility.astype(np.float32),
        ignored=objects.visibility < _LEAST_VISIBILITY,
        centres=centres.astype(np.float32),
        depths_over_focal=(depths / k[1, 1]).astype(np.float32),
        sizes=objects.sizes.astype(np.float32),
        alphas=objects.alphas.astype(np.float32),
    )
