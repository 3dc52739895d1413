"""Output heads: from a detector's raw outputs to candidates.

A head takes what is over the score threshold first and decodes only that. A candidate's class is the model's best
class; when that one stands for none of the pipeline's, the candidate is dropped. What is not finite never becomes one.
Heads hold no state between calls, so one serves all cameras at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.detect.labels import NOT_MAPPED
from perception.messages import Candidates, Float32, Int32

Indices = NDArray[np.intp]

_quietly = np.errstate(over="ignore", invalid="ignore")
"""Outputs may hold anything: what overflows is dropped in the end, by `_candidates`, and worth no warning."""


class Grid(NamedTuple):
    """The anchor points of a YOLO by row of its output: `cells` (N, 2) as column, row and `strides` (N,) in pixels."""

    cells: Float32
    strides: Float32


class Order(NamedTuple):
    """Which of three outputs is which."""

    boxes: int
    scores: int
    labels: int


class YoloV5Head:
    """YOLOv5, v7 and YOLOX with its decoding: (N, 5 + C) of centre, size, objectness, class scores; in pixels."""

    def __init__(self, label_of: Int32, score_threshold: float) -> None:
        self.label_of = label_of
        self.score_threshold = score_threshold

    @_quietly
    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the output of one image."""
        _, boxes, scores, labels = _over_threshold(outputs[0], self.label_of, self.score_threshold)
        return _candidates(_corners(boxes), scores, labels)


class YoloXHead:
    """YOLOX as exported, raw: (N, 5 + C) with centre and size relative to the grid (Ge et al. 2021, arXiv:2107.08430).

    A centre is (offset + cell) * stride, a size is exp(raw) * stride.
    """

    def __init__(self, grid: Grid, label_of: Int32, score_threshold: float) -> None:
        self.grid = grid
        self.label_of = label_of
        self.score_threshold = score_threshold

    @_quietly
    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the output of one image."""
        rows, boxes, scores, labels = _over_threshold(outputs[0], self.label_of, self.score_threshold)
        np.exp(boxes[:, 2:], out=boxes[:, 2:])
        boxes[:, :2] += self.grid.cells[rows]
        boxes *= self.grid.strides[rows, None]
        return _candidates(_corners(boxes), scores, labels)


class YoloV8Head:
    """YOLOv8, v9 and v11: (4 + C, N) of centre, size, class scores; in pixels, without objectness."""

    def __init__(self, label_of: Int32, score_threshold: float) -> None:
        self.label_of = label_of
        self._mapped = 4 + np.flatnonzero(label_of != NOT_MAPPED)
        self.score_threshold = score_threshold

    @_quietly
    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the output of one image."""
        # Six classes of COCO's eighty matter: looking at those alone first saves most of the work.
        best_mapped = outputs[0][self._mapped].max(axis=0)
        near = outputs[0][:, np.flatnonzero(best_mapped >= self.score_threshold)].T
        best = near[:, 4:].argmax(axis=1)
        scores = near[np.arange(len(near)), 4 + best]
        return _candidates(_corners(near[:, :4]), scores, self.label_of[best])


class EndToEndHead:
    """Boxes, scores and labels after NMS or without need of it: YOLOv10, YOLO26 and SSD exports.

    Not those of RT-DETR as they usually come: with a second input, or with boxes as fractions of the image.

    Either one output (N, 6) of x1 y1 x2 y2 score label, or three, (N, 4), (N,) and (N,): then `order`
    says which is which. Boxes are in pixels of the model's input.
    """

    def __init__(self, order: Order | None, label_of: Int32, score_threshold: float) -> None:
        self.order = order
        self.label_of = label_of
        self.score_threshold = score_threshold

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the output or outputs of one image."""
        if self.order is None:
            boxes, scores, classes = outputs[0][:, :4], outputs[0][:, 4], outputs[0][:, 5]
        else:
            boxes, scores, classes = (outputs[i] for i in self.order)
        # -1 and labels past the end are how some exports fill up unused rows.
        rows = np.flatnonzero((scores >= self.score_threshold) & (classes >= 0) & (classes < len(self.label_of)))
        return _candidates(boxes[rows], scores[rows], self.label_of[classes[rows].astype(np.intp)])


def grid(input_size: tuple[int, int], strides: Sequence[int]) -> Grid:
    """Anchor points of a YOLO for an input of (width, height), stride by stride and row by row, as its outputs go."""
    cells, strides_of = [], []
    for stride in strides:
        width, height = (-(-side // stride) for side in input_size)
        column, row = np.meshgrid(np.arange(width), np.arange(height))
        cells.append(np.stack([column.ravel(), row.ravel()], axis=1))
        strides_of.append(np.full(width * height, stride))
    return Grid(np.concatenate(cells).astype(np.float32), np.concatenate(strides_of).astype(np.float32))


def _over_threshold(
    output: Float32, label_of: Int32, score_threshold: float
) -> tuple[Indices, Float32, Float32, Int32]:
    """Which rows of an output with objectness are over the threshold, and their boxes as they come, scores, labels.

    The score is objectness times class score, so it cannot pass the threshold where objectness does not.
    """
    rows = np.flatnonzero(output[:, 4] >= score_threshold)
    near = output[rows]
    best = near[:, 5:].argmax(axis=1)
    scores = near[:, 4] * near[np.arange(len(near)), 5 + best]
    over = np.flatnonzero(scores >= score_threshold)
    return rows[over], near[over, :4], scores[over], label_of[best[over]]


def _corners(boxes: Float32) -> Float32:
    """Centre and size to x1 y1 x2 y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _candidates(boxes: Float32, scores: Float32, labels: Int32) -> Candidates:
    """Keep what is mapped and finite; a score that quantisation put just over 1 is cut to 1."""
    keep = np.flatnonzero((labels != NOT_MAPPED) & np.isfinite(scores) & np.isfinite(boxes).all(axis=1))
    return Candidates(
        boxes[keep].astype(np.float32, copy=False),
        np.minimum(scores[keep], 1).astype(np.float32, copy=False),
        labels[keep],
    )
