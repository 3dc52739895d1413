"""The stock detector's head: ``perception-stock-v1``.

Its grid has a cell per 4x4 pixels of the input, but is computed at an eighth of the resolution: each location
predicts the 2x2 cells it covers (sub-pixel convolution, Shi et al. 2016, with the shuffle left out). The cells come
in the order (row of location, column of location, row in it, column in it); a cell's middle is its anchor.
Two outputs per image:

`scores` (h / 8, w / 8, 4 * 6): per cell the logits of the classes in the order of CLASSES, independent of each other.

`regression` (h / 8, w / 8, 4 * 13): per cell

- left, top, right, bottom: logarithms of the distances from the anchor to the box's edges, in units of 8 pixels;
- u, v: where the object's 3-D centre projects to, from the box's centre, in box widths and heights;
- depth: logarithm of `DEPTH_FOCAL` * depth of the 3-D centre along the optical axis in metres / focal length in pixels
  of the *input*. What an image shows is size over depth times focal length, so the focal length is left to the
  calibration and one model serves lenses of all kinds;
- spread: logarithm of the scale b of the Laplace distribution of the depth channel's error (Kendall and Gal 2017);
- length, width, height: logarithms of the sizes over the class's means in `SIZE_MEANS`;
- sine and cosine of the observation angle: the heading about the camera's y axis less the azimuth of the viewing ray,
  `alpha` of KITTI (Geiger et al. 2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.detect.labels import NOT_MAPPED
from perception.messages import Attributes, Candidates, Float32, Int32

HEAD_NAME: Final = "perception-stock-v1"
OUTPUTS: Final = ("scores", "regression")
CELLS: Final = 4
CELL_PX: Final = 4
SCORES: Final = 6
REGRESSION: Final = 13
EDGES: Final = slice(0, 4)
CENTRE: Final = slice(4, 6)
DEPTH: Final = 6
SPREAD: Final = 7
SIZE: Final = slice(8, 11)
ANGLE: Final = slice(11, 13)
EDGE_UNIT_PX: Final = 8.0
DEPTH_FOCAL: Final = 10.0

SIZE_MEANS: Final = np.array(
    [
        (4.5, 1.85, 1.6),
        (7.5, 2.5, 3.0),
        (11.5, 2.6, 3.2),
        (2.1, 0.8, 1.5),
        (1.8, 0.6, 1.7),
        (0.6, 0.6, 1.75),
    ],
    np.float32,
)
"""Length, width, height in metres by class: part of the head's definition, not a prior of the road."""


_LARGEST_LOG: Final = 6.0  # exp(6) * 8 pixels, and 400 times any mean: more than there is
MOST_CANDIDATES: Final = 1000
_STD_OF_LAPLACE: Final = math.sqrt(2)  # over its scale b


class StockHead:
    """The stock detector: `outputs` are its scores and its regression.

    `label_of` (6,) maps the model's classes onto the pipeline's. At most the 1000 best cells are decoded.
    """

    def __init__(self, input_size: tuple[int, int], label_of: Int32, score_threshold: float) -> None:
        self._anchors = anchors(*input_size)
        self.label_of = label_of
        within = min(max(score_threshold, 1e-6), 1 - 1e-6)
        self.least_logit = math.log(within / (1 - within))

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the outputs of one image; a cell gives one candidate, of its best class."""
        logits = outputs[0].reshape(-1, SCORES)
        cells = np.unique(np.flatnonzero(logits.reshape(-1) >= self.least_logit) // SCORES)
        best = logits[cells].argmax(axis=1)
        logit = logits[cells, best]
        # A logit that is not finite is no detection.
        keep = np.flatnonzero((self.label_of[best] != NOT_MAPPED) & np.isfinite(logit))
        if len(keep) > MOST_CANDIDATES:
            keep = np.sort(keep[np.argsort(-logit[keep], kind="stable")[:MOST_CANDIDATES]])
        cells, best, logit = cells[keep], best[keep], logit[keep]
        raw = np.nan_to_num(outputs[1].reshape(-1, REGRESSION)[cells])
        boxes = _boxes(raw, self._anchors[cells])
        scores = (1 / (1 + np.exp(-logit))).astype(np.float32)
        return Candidates(boxes, scores, self.label_of[best], _attributes(raw, boxes, best))


def _boxes(raw: Float32, anchor: Float32) -> Float32:
    edges = np.exp(np.minimum(raw[:, EDGES], _LARGEST_LOG)) * EDGE_UNIT_PX
    return np.concatenate([anchor - edges[:, :2], anchor + edges[:, 2:]], axis=1).astype(np.float32)


def _attributes(raw: Float32, boxes: Float32, classes: NDArray[np.intp]) -> Attributes:
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    logs = np.clip(raw, -_LARGEST_LOG, _LARGEST_LOG)
    return Attributes(
        centres=(middles + raw[:, CENTRE] * sides).astype(np.float32),
        depths_over_focal=(np.exp(logs[:, DEPTH]) / DEPTH_FOCAL).astype(np.float32),
        depth_stds=(_STD_OF_LAPLACE * np.exp(logs[:, SPREAD])).astype(np.float32),
        sizes=np.exp(logs[:, SIZE]) * SIZE_MEANS[classes],
        alphas=np.arctan2(raw[:, ANGLE.start], raw[:, ANGLE.start + 1]),
    )


def output_shapes(input_size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """The shapes of the outputs of one image for an input of (width, height)."""
    width, height = input_size
    return tuple((height // 8, width // 8, CELLS * channels) for channels in (SCORES, REGRESSION))


def anchors(width: int, height: int) -> Float32:
    """The cells' middles (h / 4 * w / 4, 2) as x, y in pixels of an input of this size, in the order of the outputs."""
    row, column, inner_row, inner_column = np.indices((height // 8, width // 8, 2, 2), np.float32)
    x = (2 * column + inner_column + 0.5) * CELL_PX
    y = (2 * row + inner_row + 0.5) * CELL_PX
    return np.stack([x.ravel(), y.ravel()], axis=1)
