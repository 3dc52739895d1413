"""The training loss: one term per kind of output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engines.train.targets import Targets
from perception.detect.stock import ANGLE, CENTRE, DEPTH, EDGE_UNIT_PX, EDGES, REGRESSION, SCORES, SIZE, SPREAD

WEIGHTS: Final = {"scores": 1.0, "box": 4.0, "centre": 1.0, "depth": 0.5, "size": 1.0, "angle": 0.5}
_LARGEST_EDGE: Final = 5.0  # exp(5) * 8 px is more than any input
_SPREAD_LIMITS: Final = (-4.0, 2.0)


class Batch(NamedTuple):
    """Images (N, 3, h, w) uint8 and their targets; `cells` count through the whole batch."""

    images: Tensor
    heat: Tensor
    cells: Tensor
    weights: Tensor
    values: Tensor
    objects: int


def collate(images: Sequence[np.ndarray], targets: Sequence[Targets]) -> Batch:
    """Put images (h, w, 3) and their targets together."""
    per_image = targets[0].heat.shape[0]
    cells = np.concatenate([t.cells + i * per_image for i, t in enumerate(targets)])
    return Batch(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        heat=torch.from_numpy(np.stack([t.heat for t in targets])),
        cells=torch.from_numpy(cells.astype(np.int64)),
        weights=torch.from_numpy(np.concatenate([t.weights for t in targets])),
        values=torch.from_numpy(np.concatenate([t.values for t in targets])),
        objects=max(sum(t.objects for t in targets), 1),
    )


def loss(scores: Tensor, regression: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The terms of the loss, unweighted, each a mean over the batch's objects."""
    said = regression.float().reshape(-1, REGRESSION)[batch.cells]
    meant, weights = batch.values, batch.weights / batch.objects
    spread = said[:, SPREAD].clamp(*_SPREAD_LIMITS)
    # Laplace's negative logarithmic likelihood, log 2 left out: far objects may be wrong, if they say so.
    depth = (said[:, DEPTH] - meant[:, DEPTH]).abs() * torch.exp(-spread) + spread
    return {
        "scores": _focal(scores.float().reshape(-1, SCORES), batch.heat.reshape(-1, SCORES)) / batch.objects,
        "box": (_generalised_iou_loss(said[:, EDGES], meant[:, EDGES]) * weights).sum(),
        "centre": (_error(said[:, CENTRE], meant[:, CENTRE]) * weights).sum(),
        "depth": (depth * weights).sum(),
        "size": (_error(said[:, SIZE], meant[:, SIZE]) * weights).sum(),
        "angle": (_error(said[:, ANGLE], meant[:, ANGLE]) * weights).sum(),
    }


def total(terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss (CornerNet, Law and Deng 2018); cells where `heat` is negative are left out."""
    probability = torch.sigmoid(logits)
    at_centre = (1 - probability) ** 2 * functional.logsigmoid(logits)
    elsewhere = (1 - heat) ** 4 * probability**2 * functional.logsigmoid(-logits)
    return -torch.where(heat == 1, at_centre, torch.where(heat < 0, 0.0, elsewhere)).sum()


def _generalised_iou_loss(said: Tensor, meant: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019) of boxes given by their edges' distances from one anchor."""
    a, b = torch.exp(said.clamp(max=_LARGEST_EDGE)) * EDGE_UNIT_PX, torch.exp(meant) * EDGE_UNIT_PX
    inner, outer = torch.minimum(a, b), torch.maximum(a, b)
    intersection = _area(inner)
    union = _area(a) + _area(b) - intersection
    hull = _area(outer)
    return 1 - intersection / union + (hull - union) / hull


def _area(edges: Tensor) -> Tensor:
    return (edges[:, 0] + edges[:, 2]) * (edges[:, 1] + edges[:, 3])


def _error(said: Tensor, meant: Tensor) -> Tensor:
    return functional.smooth_l1_loss(said, meant, beta=0.1, reduction="none").sum(dim=1)
