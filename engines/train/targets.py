"""What the network should have said about an image: the assigner.

Scores follow a Gaussian bump about each box's centre, shaped as the box (CenterNet, Zhou et al. 2019, "Objects as
Points"); the other channels are taught at every cell under the bump, weighted by it, so that large objects teach many
cells (TTFNet, Liu et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.train.samples import Labels
from perception.detect.stock import CELL_PX, DEPTH_FOCAL, EDGE_UNIT_PX, REGRESSION, SCORES, SIZE_MEANS
from perception.messages import Float32, Int32

_SPREAD: Final = 0.54 / 6  # standard deviation of the bump over the side of the box (TTFNet's alpha, over 6)
_EDGE_OF_BUMP: Final = 0.1
_LOWEST_EDGE_PX: Final = 0.5
_IGNORED: Final = -1.0


@dataclass(frozen=True, slots=True)
class Targets:
    """Of one image: `heat` (cells, 6), where -1 means do not care; and the M cells that regress.

    `cells` (M,) index the cells, `weights` (M,) sum to 1 over each object. `values` (M, 13) are laid out as the
    regression output; the spread has no target. `objects` counts the objects taught.
    """

    heat: Float32
    cells: Int32
    weights: Float32
    values: Float32
    objects: int


def assign(labels: Labels, width: int, height: int) -> Targets:
    """Targets for labels in pixels of an input of this size; smaller objects win the cells they share with larger."""
    columns, rows = width // CELL_PX, height // CELL_PX
    heat = np.zeros((rows, columns, SCORES), np.float32)
    owner = np.full((rows, columns), -1, np.int32)
    bumps = np.zeros((rows, columns), np.float32)
    area = np.prod(labels.boxes[:, 2:] - labels.boxes[:, :2], axis=1)
    for i in np.argsort(-area, kind="stable"):
        if labels.ignored[i]:
            left, top, right, bottom = np.round(labels.boxes[i] / CELL_PX).astype(int)
            region = heat[top : bottom + 1, left : right + 1]
            region[region == 0] = _IGNORED
            continue
        ys, xs, bump = _bump(labels.boxes[i], columns, rows)
        of_class = heat[ys, xs, labels.labels[i]]
        np.maximum(of_class, bump, out=of_class)
        taught = bump > _EDGE_OF_BUMP
        owner[ys, xs][taught] = i
        bumps[ys, xs][taught] = bump[taught]
    y, x = np.nonzero(owner >= 0)
    of_object = owner[y, x]
    weights = bumps[y, x]
    total = np.bincount(of_object, weights, minlength=len(labels.labels))
    return Targets(
        heat=_in_output_order(heat).reshape(-1, SCORES),
        cells=(((y // 2) * (columns // 2) + x // 2) * 4 + (y % 2) * 2 + x % 2).astype(np.int32),
        weights=(weights / total[of_object]).astype(np.float32),
        values=_values(labels, of_object, (x + 0.5) * CELL_PX, (y + 0.5) * CELL_PX),
        objects=int(np.count_nonzero(total)),
    )


def _bump(box: Float32, columns: int, rows: int) -> tuple[slice, slice, Float32]:
    """A Gaussian that is 1 at the cell of the box's centre, in the window where it matters."""
    spread = np.maximum((box[2:] - box[:2]) * _SPREAD / CELL_PX, 1e-3)
    centre = (box[:2] + box[2:]) / 2 / CELL_PX
    x, y = min(int(centre[0]), columns - 1), min(int(centre[1]), rows - 1)
    reach_x, reach_y = (int(3 * s) for s in spread)
    xs = np.arange(max(x - reach_x, 0), min(x + reach_x + 1, columns))
    ys = np.arange(max(y - reach_y, 0), min(y + reach_y + 1, rows))
    along_x = np.exp(-(((xs - x) / spread[0]) ** 2) / 2)
    along_y = np.exp(-(((ys - y) / spread[1]) ** 2) / 2)
    bump = np.outer(along_y, along_x).astype(np.float32)
    return slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1), bump


def _in_output_order(heat: Float32) -> Float32:
    rows, columns, classes = heat.shape
    return heat.reshape(rows // 2, 2, columns // 2, 2, classes).transpose(0, 2, 1, 3, 4)


def _values(labels: Labels, of_object: Int32, x: Float32, y: Float32) -> Float32:
    boxes = labels.boxes[of_object]
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    edges = np.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], axis=1)
    alpha = labels.alphas[of_object]
    values = np.zeros((len(of_object), REGRESSION), np.float32)
    values[:, 0:4] = np.log(np.maximum(edges, _LOWEST_EDGE_PX) / EDGE_UNIT_PX)
    values[:, 4:6] = (labels.centres[of_object] - middles) / sides
    values[:, 6] = np.log(DEPTH_FOCAL * labels.depths_over_focal[of_object])
    values[:, 8:11] = np.log(labels.sizes[of_object] / SIZE_MEANS[labels.labels[of_object]])
    values[:, 11] = np.sin(alpha)
    values[:, 12] = np.cos(alpha)
    return values
