"""Labelled images: what the world renders, what augmentation changes, what the assigner reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from perception.messages import Float32, Image, Int32

_PAD: Final = (114, 114, 114)
_LEAST_HEIGHT_PX: Final = 7.5  # smaller ones line every horizon, and would be most of what is learned
_LEAST_INSIDE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Labels:
    """The objects of one image.

    `boxes` (N, 4) are around them, as x1 y1 x2 y2 in pixels; `labels` (N,) index CLASSES; `visibility` (N,) is the
    part that nothing hides, in [0, 1]; `ignored` (N,) marks what need neither be found nor left alone. `centres` (N, 2)
    are the projections of the 3-D centres in pixels, `depths_over_focal` (N,) their depths in metres over the focal
    length in pixels, `sizes` (N, 3) length, width and height in metres, `alphas` (N,) observation angles in radians.
    """

    boxes: Float32
    labels: Int32
    visibility: Float32
    ignored: np.ndarray
    centres: Float32
    depths_over_focal: Float32
    sizes: Float32
    alphas: Float32


class Placement(NamedTuple):
    """How an image lies in the network's input: scaled, then shifted, perhaps mirrored after that."""

    scale: float
    x: float
    y: float
    mirrored: bool


def place(image: Image, labels: Labels, placement: Placement, width: int, height: int) -> tuple[Image, Labels]:
    """Image and labels as the network sees them: cut off at the borders; where too little is left, ignored."""
    scale, x, y, mirrored = placement
    sign = -1.0 if mirrored else 1.0
    # Pixel centres lie at whole coordinates for OpenCV and at halves for boxes.
    to_input = np.array([[sign * scale, 0, width - x if mirrored else x], [0, scale, y]])
    to_input_pixels = to_input.copy()
    to_input_pixels[:, 2] += (to_input[:, :2] @ (0.5, 0.5)) - 0.5
    placed = cv2.warpAffine(
        image, to_input_pixels, (width, height),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_PAD,
    )  # fmt: skip
    return np.asarray(placed, np.uint8), _placed_labels(labels, to_input, placement, width, height)


def _placed_labels(labels: Labels, to_input: np.ndarray, placement: Placement, width: int, height: int) -> Labels:
    corners = labels.boxes.reshape(-1, 2, 2) @ to_input[:, :2].T + to_input[:, 2]
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    limits = np.array([width, height, width, height], np.float32)
    cut = np.clip(whole, 0, limits)
    sides, whole_sides = cut[:, 2:] - cut[:, :2], whole[:, 2:] - whole[:, :2]
    inside = np.prod(sides, axis=1) / np.maximum(np.prod(whole_sides, axis=1), 1e-6)
    ignored = labels.ignored | (inside < _LEAST_INSIDE) | (sides[:, 1] < _LEAST_HEIGHT_PX) | (sides[:, 0] < 2)
    keep = (sides > 0.5).all(axis=1)
    alphas = np.pi - labels.alphas if placement.mirrored else labels.alphas
    return Labels(
        boxes=cut[keep].astype(np.float32),
        labels=labels.labels[keep],
        visibility=labels.visibility[keep],
        ignored=ignored[keep],
        centres=(labels.centres @ to_input[:, :2].T + to_input[:, 2])[keep].astype(np.float32),
        depths_over_focal=(labels.depths_over_focal / placement.scale)[keep].astype(np.float32),
        sizes=labels.sizes[keep],
        alphas=alphas[keep].astype(np.float32),
    )
