"""The training loss: one term per kind of output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engines.train.assign import area, assign, boxes_at
from engines.train.targets import Targets
from perception.detect import stock
from perception.detect.stock import ANGLE, CENTRE, DEPTH, EDGES, REGRESSION, SCORES, SIZE, SPREAD

_WEIGHTS: Final = {"scores": 1.0, "box": 4.0, "centre": 1.0, "depth": 0.5, "size": 1.0}
_SPREAD_LIMITS: Final = (-4.0, 2.0)


class Batch(NamedTuple):
    """Images (N, 3, h, w) uint8, and of each its targets: boxes (M, 4), labels (M,), values (M, 13).

    `silent` (N, cells) is where nothing is taught that no object asks for; `anchors` (cells, 2) are the cells' middles.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    values: list[Tensor]
    silent: Tensor
    anchors: Tensor


class _Answers(NamedTuple):
    """The cells of a batch that answer for an object: what they said, what was meant, and the score they are due."""

    cells: Tensor
    said: Tensor
    anchors: Tensor
    boxes: Tensor
    labels: Tensor
    values: Tensor
    quality: Tensor


def collate(images: Sequence[np.ndarray], targets: Sequence[Targets]) -> Batch:
    """Put images (h, w, 3) and their targets together."""
    height, width = images[0].shape[:2]
    return Batch(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        boxes=[torch.from_numpy(t.boxes) for t in targets],
        labels=[torch.from_numpy(t.labels.astype(np.int64)) for t in targets],
        values=[torch.from_numpy(t.values) for t in targets],
        silent=torch.from_numpy(np.stack([t.silent for t in targets])),
        anchors=torch.from_numpy(stock.anchors(width, height)),
    )


def loss(scores: Tensor, regression: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The terms of the loss, unweighted, each a mean over the batch's answers by their quality."""
    logits = scores.float().reshape(len(batch.images), -1, SCORES)
    answers = _answers(logits, regression.float().reshape(len(batch.images), -1, REGRESSION), batch)
    due = answers.quality.sum().clamp(min=1.0)
    weights, said, values = answers.quality / due, answers.said, answers.values
    spread = said[:, SPREAD].clamp(*_SPREAD_LIMITS)
    # Laplace's negative logarithmic likelihood, log 2 left out: far objects may be wrong, if they say so.
    depth = (said[:, DEPTH] - values[:, DEPTH]).abs() * torch.exp(-spread) + spread
    return {
        "scores": _score_loss(logits.reshape(-1, SCORES), answers, batch.silent.reshape(-1)) / due,
        "box": (_generalised_iou_loss(boxes_at(said[:, EDGES], answers.anchors), answers.boxes) * weights).sum(),
        "centre": (_error(said[:, CENTRE], values[:, CENTRE]) * weights).sum(),
        "depth": (depth * weights).sum(),
        "size": (_error(said[:, SIZE], values[:, SIZE]) * weights).sum(),
        "angle": (_error(said[:, ANGLE], values[:, ANGLE]) * weights).sum(),
    }


def total(terms: dict[str, Tensor], angle: float) -> Tensor:
    """The weighted sum of the terms, `angle` being the weight of that one."""
    weights = {**_WEIGHTS, "angle": angle}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _answers(logits: Tensor, regression: Tensor, batch: Batch) -> _Answers:
    per_image = len(batch.anchors)
    found = []
    for i, (boxes, labels, values) in enumerate(zip(batch.boxes, batch.labels, batch.values, strict=True)):
        if len(boxes) == 0:
            continue
        said = boxes_at(regression[i, :, EDGES].detach(), batch.anchors)
        cells, objects, quality = assign(logits[i].detach(), said, batch.anchors, boxes, labels)
        found.append(
            _Answers(
                cells + i * per_image, regression[i, cells], batch.anchors[cells],
                boxes[objects], labels[objects], values[objects], quality,
            )
        )  # fmt: skip
    if not found:
        nobody = torch.zeros(0, dtype=torch.int64)
        corners, values = torch.zeros(0, 4), regression.reshape(-1, REGRESSION)[:0]
        return _Answers(nobody, values, corners[:, :2], corners, nobody, values, torch.zeros(0))
    return _Answers(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _score_loss(logits: Tensor, answers: _Answers, silent: Tensor) -> Tensor:
    """Binary cross entropy with the quality of the answer as target (Zhang et al. 2021, without their weighting)."""
    target = torch.zeros_like(logits)
    target[answers.cells, answers.labels] = answers.quality
    heard = ~silent
    heard[answers.cells] = True
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * heard[:, None]).sum()


def _generalised_iou_loss(said: Tensor, meant: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019) of boxes (N, 4)."""
    inner = area(torch.maximum(said[:, :2], meant[:, :2]), torch.minimum(said[:, 2:], meant[:, 2:]))
    hull = area(torch.minimum(said[:, :2], meant[:, :2]), torch.maximum(said[:, 2:], meant[:, 2:]))
    union = area(said[:, :2], said[:, 2:]) + area(meant[:, :2], meant[:, 2:]) - inner
    return 1 - inner / union + (hull - union) / hull


def _error(said: Tensor, meant: Tensor) -> Tensor:
    return functional.smooth_l1_loss(said, meant, beta=0.1, reduction="none").sum(dim=1)
