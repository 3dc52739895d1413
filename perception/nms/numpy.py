"""Non-maximum suppression in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.config import NmsConfig
from perception.messages import Candidates, Float32, Int32
from perception.nms.threshold import float32_at_most

_BLOCK = 128
"""Candidates compared all with all at a time: the usual image needs one block."""


class NumpyNms:
    """Class-aware greedy non-maximum suppression: the same boxes as `torchvision.ops.batched_nms`.

    Of two boxes of one class with an IoU over `iou_threshold` the one with the lower score goes; at equal scores, the
    one that comes later. Boxes without a finite, positive area and candidates without a finite score are dropped
    first. It holds no state between calls, so one serves all cameras at once.
    """

    def __init__(self, config: NmsConfig) -> None:
        self._iou_threshold = float32_at_most(config.iou_threshold)
        self._max_candidates = config.max_candidates
        self._max_detections = config.max_detections

    def __call__(self, candidates: Candidates) -> Candidates:
        """Keep at most `max_detections` of the best `max_candidates`, by falling score."""
        with np.errstate(over="ignore", invalid="ignore"):
            best = _best_first(candidates)[: self._max_candidates]
            boxes, labels = candidates.boxes[best], candidates.labels[best]
            kept = best[_suppress(boxes, labels, self._iou_threshold, self._max_detections)]
        return candidates.take(kept)


def _best_first(candidates: Candidates) -> NDArray[np.intp]:
    """Indices of the sound candidates, by falling score; equal scores stay in their order."""
    boxes, scores = candidates.boxes, candidates.scores
    extents = boxes[:, 2:] - boxes[:, :2]
    areas = extents[:, 0] * extents[:, 1]
    sound = np.flatnonzero((extents > 0).all(axis=1) & (areas > 0) & np.isfinite(areas) & np.isfinite(scores))
    return sound[np.argsort(-scores[sound], kind="stable")]


def _suppress(boxes: Float32, labels: Int32, iou_threshold: np.float32, limit: int) -> NDArray[np.intp]:
    """Indices kept of `boxes`, which come best first. Block by block, so that the cost follows what is kept."""
    edges = np.ascontiguousarray(boxes.T)
    alive = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        block = start + np.flatnonzero(alive[start : start + _BLOCK])
        before = len(kept)
        kept += block[_greedy(_overlaps(edges, labels, block, block, iou_threshold), limit - before)].tolist()
        if len(kept) == limit:
            break
        rest = start + _BLOCK + np.flatnonzero(alive[start + _BLOCK :])
        if rest.size and len(kept) > before:
            new = np.array(kept[before:], np.intp)
            alive[rest[_overlaps(edges, labels, new, rest, iou_threshold).any(axis=0)]] = False
    return np.array(kept, np.intp)


def _greedy(overlaps: NDArray[np.bool_], limit: int) -> list[int]:
    """Walk down the candidates, best first; what is kept strikes out all that it overlaps."""
    apart = ~overlaps
    free = np.ones(len(overlaps), np.bool_)
    kept: list[int] = []
    for i in range(len(overlaps)):
        if free[i]:
            kept.append(i)
            if len(kept) == limit:
                break
            free &= apart[i]
    return kept


def _overlaps(
    edges: Float32, labels: Int32, these: NDArray[np.intp], those: NDArray[np.intp], iou_threshold: np.float32
) -> NDArray[np.bool_]:
    """Which of `these` (rows) have the class of, and an IoU over the threshold with, which of `those` (columns)."""
    left, top, right, bottom = edges[:, these, None]
    left_, top_, right_, bottom_ = edges[:, None, those]
    width = np.minimum(right, right_) - np.maximum(left, left_)
    height = np.minimum(bottom, bottom_) - np.maximum(top, top_)
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    intersection = np.multiply(width, height, out=width)
    union = (right - left) * (bottom - top) + (right_ - left_) * (bottom_ - top_)
    union -= intersection
    iou = np.divide(intersection, union, out=union)
    found: NDArray[np.bool_] = (iou > iou_threshold) & (labels[these, None] == labels[None, those])
    return found
