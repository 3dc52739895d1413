"""Which cells answer for which object, and how well: task-aligned assignment (TOOD, Feng et al. 2021).

Of the cells whose middles lie in an object's box, those answer for it that already say it best, class and box together.
Their score is to become how well they say it, so that scores rank boxes by how near they are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from perception.detect.stock import CELL_PX, EDGE_UNIT_PX

_CELLS_PER_OBJECT: Final = 10
_SCORE_POWER: Final = 0.5
_OVERLAP_POWER: Final = 6.0
_LARGEST_EDGE: Final = 5.0  # exp(5) * 8 px is more than any input
_REACH_PX: Final = CELL_PX / 2 + 0.01  # the cell about the middle answers for the smallest object too
_LEAST: Final = 1e-9


class Assignment(NamedTuple):
    """M answers: `cells` (M,) of the image, `objects` (M,) of the image, `quality` (M,) in [0, 1]."""

    cells: Tensor
    objects: Tensor
    quality: Tensor


@torch.no_grad()
def assign(logits: Tensor, said: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor) -> Assignment:
    """Assign the cells of one image: `logits` (A, classes) and boxes `said` (A, 4) to `boxes` (M, 4) of `labels` (M,).

    A cell answers for one object, the one it overlaps most.
    """
    overlap = _overlaps(boxes, said)
    fit = torch.sigmoid(logits.float()[:, labels]).T ** _SCORE_POWER * overlap**_OVERLAP_POWER
    fit = torch.where(_inside(anchors, boxes), fit + _LEAST, 0.0)
    best = fit.topk(min(_CELLS_PER_OBJECT, fit.shape[1]), dim=1)
    answers = torch.zeros_like(fit).scatter_(1, best.indices, best.values) > 0
    contested = torch.where(answers, overlap, -1.0)
    cells = answers.any(dim=0).nonzero()[:, 0]
    objects = contested[:, cells].argmax(dim=0)
    fit_of, overlap_of = fit[objects, cells], overlap[objects, cells]
    best_fit = torch.zeros(len(boxes)).scatter_reduce_(0, objects, fit_of, "amax")
    best_overlap = torch.zeros(len(boxes)).scatter_reduce_(0, objects, overlap_of, "amax")
    return Assignment(cells, objects, fit_of / best_fit[objects] * best_overlap[objects])


def boxes_at(edges: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, 4) from the edges channels (N, 4) of cells whose middles are `anchors` (N, 2)."""
    distances = torch.exp(edges.clamp(max=_LARGEST_EDGE)) * EDGE_UNIT_PX
    return torch.cat([anchors - distances[:, :2], anchors + distances[:, 2:]], dim=1)


def area(low: Tensor, high: Tensor) -> Tensor:
    """Of boxes (..., 2) to (..., 2); 0 where they are empty."""
    return (high - low).clamp(min=0).prod(dim=-1)


def _inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    middles, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=_REACH_PX)
    return ((anchors[None] - middles[:, None]).abs() < reach[:, None]).all(dim=2)


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, (M, A)."""
    a = a[:, None]
    common = area(torch.maximum(a[..., :2], b[:, :2]), torch.minimum(a[..., 2:], b[:, 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[:, :2], b[:, 2:]) - common
    return common / union.clamp(min=1e-6)
