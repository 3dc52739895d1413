"""What an image's labels say in the terms of the head: boxes, values, and the cells where nothing is taught.

Which cells answer for which object is decided in `engines.train.assign`, by what the network says itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.train.samples import Labels
from perception.detect.stock import ANGLE, CELL_PX, CENTRE, DEPTH, DEPTH_FOCAL, REGRESSION, SIZE, SIZE_MEANS
from perception.messages import Float32, Int32


@dataclass(frozen=True, slots=True)
class Targets:
    """Of one image: its M objects, and `silent` (cells,), in the order of the outputs, where ignored objects are.

    `boxes` (M, 4) in pixels of the input, `labels` (M,), `values` (M, 13) as the regression output has them, but for
    the edges, which depend on the cell, and the spread, which has no target.
    """

    boxes: Float32
    labels: Int32
    values: Float32
    silent: NDArray[np.bool_]


def targets(labels: Labels, width: int, height: int) -> Targets:
    """Targets for labels in pixels of an input of this size."""
    taught = ~labels.ignored
    boxes, classes, alphas = labels.boxes[taught], labels.labels[taught], labels.alphas[taught]
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    values = np.zeros((len(boxes), REGRESSION), np.float32)
    values[:, CENTRE] = (labels.centres[taught] - middles) / sides
    values[:, DEPTH] = np.log(DEPTH_FOCAL * labels.depths_over_focal[taught])
    values[:, SIZE] = np.log(labels.sizes[taught] / SIZE_MEANS[classes])
    values[:, ANGLE] = np.stack([np.sin(alphas), np.cos(alphas)], axis=1)
    return Targets(boxes, classes, values, _silent(labels.boxes[labels.ignored], width, height))


def _silent(boxes: Float32, width: int, height: int) -> NDArray[np.bool_]:
    silent = np.zeros((height // CELL_PX, width // CELL_PX), np.bool_)
    for left, top, right, bottom in np.round(boxes / CELL_PX).astype(int):
        silent[top : bottom + 1, left : right + 1] = True
    rows, columns = silent.shape
    return silent.reshape(rows // 2, 2, columns // 2, 2).transpose(0, 2, 1, 3).reshape(-1)
