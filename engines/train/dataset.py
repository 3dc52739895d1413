"""Labelled images in memory, and what augmentation makes of them.

Images stay JPEG, as a drive holds them: 10,000 fit into a gigabyte, and the network learns with the artefacts it will
see. Augmentation depends on nothing but (seed, epoch, index), so an interrupted run goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engines.train.loss import Batch, collate
from engines.train.samples import Labels, Placement, place
from engines.train.targets import Targets, targets
from perception.messages import CLASSES, Image

_JPEG_QUALITY: Final = 90
_COMMON_SHARE: Final = 0.4
_MOST_OFTEN: Final = 4.0
_WINDOW: Final = (256, 160)
_NOISE: Final = np.random.default_rng(0).normal(0, 1, (512, 512, 3)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Example:
    """One image as JPEG, its labels in its own pixels."""

    jpeg: bytes
    labels: Labels


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as one .npz, atomically."""
    arrays = {f.name: np.concatenate([getattr(e.labels, f.name) for e in examples]) for f in fields(Labels)}
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        jpeg=np.frombuffer(b"".join(e.jpeg for e in examples), np.uint8),
        jpeg_ends=np.cumsum([len(e.jpeg) for e in examples]),
        label_ends=np.cumsum([len(e.labels.labels) for e in examples]),
        **arrays,  # type: ignore[arg-type]
    )
    partial.rename(path)


def load(path: Path) -> list[Example]:
    """Read examples back."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    data = arrays.pop("jpeg").tobytes()
    jpeg_ends, label_ends = [0, *arrays.pop("jpeg_ends")], [0, *arrays.pop("label_ends")]
    return [
        Example(data[jpeg_ends[i] : jpeg_ends[i + 1]], _part(arrays, slice(label_ends[i], label_ends[i + 1])))
        for i in range(len(jpeg_ends) - 1)
    ]


def batches(
    examples: Sequence[Example],
    size: tuple[int, int],
    batch: int,
    *,
    seed: int,
    epoch: int,
    blank: float = 0.0,
    threads: int = 2,
) -> Iterator[Batch]:
    """One epoch of augmented batches at an input `size` of (width, height), in an order of its own.

    Of four batches one holds whole images and three hold windows of `_WINDOW` around an object: a third of the pixels
    and most of the objects. The network is convolutional, so what it learns in a window holds in the image. A part of
    `blank` of the images is uniform instead, with nothing to be found.
    """
    order = _order(examples, np.random.default_rng((seed, epoch)))

    def make(start: int) -> Batch:
        window = size if start // batch % 4 == 0 else (min(_WINDOW[0], size[0]), min(_WINDOW[1], size[1]))
        pairs = [
            _blank(window, np.random.default_rng((seed, epoch, i)))
            if np.random.default_rng((seed, epoch, i, 1)).random() < blank
            else _augmented(examples[i], size, window, np.random.default_rng((seed, epoch, i)))
            for i in order[start : start + batch]
        ]
        return collate([image for image, _ in pairs], [taught for _, taught in pairs])

    starts = range(0, len(order) - batch + 1, batch)
    with ThreadPoolExecutor(threads) as pool:
        ahead = [pool.submit(make, start) for start in starts[: 2 * threads]]
        for step in range(len(starts)):
            ready = ahead.pop(0).result()
            following = step + 2 * threads
            if following < len(starts):
                ahead.append(pool.submit(make, starts[following]))
            yield ready


def whole_images(
    examples: Sequence[Example], size: tuple[int, int], batch: int, *, seed: int, count: int
) -> Iterator[np.ndarray]:
    """Batches (batch, h, w, 3) of whole images, augmented, without their labels: `count` images at most."""
    picks = np.random.default_rng(seed).permutation(len(examples))[:count]
    for start in range(0, len(picks) - batch + 1, batch):
        chosen = picks[start : start + batch]
        yield np.stack([_augmented(examples[i], size, size, np.random.default_rng((seed, i)))[0] for i in chosen])


def letterbox(shape: tuple[int, ...], size: tuple[int, int]) -> Placement:
    """The placement that inference uses: the whole image, in the middle."""
    scale = min(size[0] / shape[1], size[1] / shape[0])
    return Placement(scale, (size[0] - scale * shape[1]) / 2, (size[1] - scale * shape[0]) / 2, mirrored=False)


def encode(image: Image) -> bytes:
    """As JPEG, as cameras of a drive do."""
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])


def decode(example: Example) -> Image:
    """The image, (H, W, 3) uint8 BGR."""
    return np.asarray(cv2.imdecode(np.frombuffer(example.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _order(examples: Sequence[Example], rng: np.random.Generator) -> np.ndarray:
    """As many indices as examples, shuffled; images with rare classes come more often than others.

    How often follows the rarest class in an image: the square root of 0.4 over the share of images that show it, as in
    LVIS (Gupta et al. 2019). Systematic resampling gives each image its due to within one.
    """
    shows = np.array([np.bincount(e.labels.labels[~e.labels.ignored], minlength=len(CLASSES)) > 0 for e in examples])
    rarity = np.sqrt(_COMMON_SHARE / np.maximum(shows.mean(axis=0), _COMMON_SHARE / _MOST_OFTEN**2))
    due = np.cumsum(np.where(shows, np.maximum(rarity, 1), 1).max(axis=1))
    picks = (np.arange(len(examples)) + rng.random()) / len(examples)
    return rng.permutation(np.searchsorted(due / due[-1], picks))


def _part(arrays: dict[str, np.ndarray], rows: slice) -> Labels:
    return Labels(**{name: values[rows] for name, values in arrays.items()})


def _augmented(
    example: Example, size: tuple[int, int], window: tuple[int, int], rng: np.random.Generator
) -> tuple[Image, Targets]:
    image = decode(example)
    placement = _in_window(_random_placement(image.shape, size, rng), example.labels, size, window, rng)
    placed, labels = place(image, example.labels, placement, *window)
    return _relit(placed, rng), targets(labels, *window)


def _blank(size: tuple[int, int], rng: np.random.Generator) -> tuple[Image, Targets]:
    """What a camera gives that is covered, blinded or dead: black, white or something between, at times with noise."""
    width, height = size
    level = rng.choice([0.0, 255.0, rng.uniform(0, 255)])
    image = np.full((height, width, 3), level, np.float32)
    if rng.random() < 0.5:
        image += _NOISE[:height, :width] * rng.uniform(1, 7)
    nothing = np.zeros(0, np.float32)
    none = Labels(
        boxes=nothing.reshape(0, 4),
        labels=nothing.astype(np.int32),
        visibility=nothing,
        ignored=nothing.astype(np.bool_),
        centres=nothing.reshape(0, 2),
        depths_over_focal=nothing,
        sizes=nothing.reshape(0, 3),
        alphas=nothing,
    )
    return np.clip(image, 0, 255).astype(np.uint8), targets(none, width, height)


def _in_window(
    placement: Placement, labels: Labels, size: tuple[int, int], window: tuple[int, int], rng: np.random.Generator
) -> Placement:
    """Move a placement so that the window shows an object: of a class drawn first, so that rare ones are seen."""
    spare_x, spare_y = size[0] - window[0], size[1] - window[1]
    seen = np.flatnonzero(~labels.ignored)
    if len(seen) == 0:
        left, top = rng.uniform(0, spare_x), rng.uniform(0, spare_y)
    else:
        label = rng.choice(np.unique(labels.labels[seen]))
        box = labels.boxes[rng.choice(seen[labels.labels[seen] == label])] * placement.scale
        x, y = (box[0] + box[2]) / 2 + placement.x, (box[1] + box[3]) / 2 + placement.y
        left = np.clip(x - rng.uniform(0.25, 0.75) * window[0], 0, spare_x)
        top = np.clip(y - rng.uniform(0.25, 0.75) * window[1], 0, spare_y)
    return placement._replace(x=float(placement.x - left), y=float(placement.y - top))


def _random_placement(shape: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator) -> Placement:
    """Half of the images as inference sees them, the others nearer or farther and shifted."""
    plain = letterbox(shape, size)
    mirrored = bool(rng.random() < 0.5)
    if rng.random() < 0.5:
        return plain._replace(mirrored=mirrored)
    scale = plain.scale * float(np.exp(rng.uniform(-0.35, 0.5)))
    slack_x, slack_y = size[0] - scale * shape[1], size[1] - scale * shape[0]
    return Placement(scale, float(rng.uniform(0, 1)) * slack_x, float(rng.uniform(0.1, 0.9)) * slack_y, mirrored)


def _relit(image: Image, rng: np.random.Generator) -> Image:
    """Exposure, contrast and white balance by one table per channel; at times soft focus, at times sensor noise."""
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    gamma, gain = np.exp(rng.uniform(-0.25, 0.25)), np.exp(rng.uniform(-0.25, 0.2))
    balance = np.exp(rng.uniform(-0.08, 0.08, 3))
    table = np.clip(255 * (levels**gamma * gain * balance + rng.uniform(-0.04, 0.04)), 0, 255).astype(np.uint8)
    relit = cv2.LUT(image, table[:, None, :])
    if rng.random() < 0.5:
        relit = cv2.GaussianBlur(relit, (3, 3), rng.uniform(0.3, 0.8))
    if rng.random() < 0.25:
        height, width = image.shape[:2]
        y, x = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
        noisy = relit + _NOISE[y : y + height, x : x + width] * rng.uniform(1, 7)
        relit = np.clip(noisy, 0, 255).astype(np.uint8)
    return np.asarray(relit, np.uint8)
