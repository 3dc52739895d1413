"""How well boxes were found: COCO's average precision, over all, per class, by size and by condition."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from perception.messages import CLASSES, Candidates, Float32, Int32

LEAST_HEIGHT_PX: Final = 12.0
LEAST_VISIBILITY: Final = 0.4
SIZES: Final[Mapping[str, tuple[float, float]]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
"""COCO's areas, in pixels of the original image."""
_IOU_50: Final = 0
_MAX_DETECTIONS: Final = 100


@dataclass(frozen=True, slots=True)
class TrueBoxes:
    """What is in one image: `boxes` (N, 4) as x1 y1 x2 y2 in pixels of the original image, `labels` (N,) into CLASSES.

    `ignored` (N,) marks objects that need not be found: a detection there counts neither way.
    """

    boxes: Float32
    labels: Int32
    ignored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Average precisions in [0, 1]; NaN where there is nothing to find.

    `per_class` and `per_size` are at an IoU of 0.5; `counts` are the objects to find, by class.
    """

    images: int
    objects: int
    counts: Mapping[str, int]
    map50: float
    map50_95: float
    per_class: Mapping[str, float]
    per_size: Mapping[str, float]


class Errors(NamedTuple):
    """At one score threshold: `missed` of `objects` were not found, and `false` detections found nothing."""

    objects: int
    missed: int
    false: int


def count_errors(truth: Sequence[TrueBoxes], found: Sequence[Candidates], least_score: float) -> Errors:
    """Match detections to objects of their class, best first, at an IoU of 0.5; those on ignored ones are no errors."""
    objects = missed = false = 0
    for of_image, detections in zip(truth, found, strict=True):
        free = ~of_image.ignored
        objects += int(free.sum())
        for box, score, label in zip(detections.boxes, detections.scores, detections.labels, strict=True):
            if score < least_score:
                break  # they come by falling score
            overlaps = np.where(of_image.labels == label, _iou(box, of_image.boxes), 0.0)
            best = int(np.argmax(np.where(free, overlaps, -1.0))) if len(overlaps) else -1
            if best >= 0 and free[best] and overlaps[best] >= 0.5:
                free[best] = False
            elif not (overlaps[of_image.ignored] >= 0.5).any():
                false += 1
        missed += int(free.sum())
    return Errors(objects, missed, false)


def too_hard(boxes: Float32, visibility: Float32) -> NDArray[np.bool_]:
    """Objects that need not be found: under 12 pixels high, or less than 0.4 visible."""
    return np.asarray((boxes[:, 3] - boxes[:, 1] < LEAST_HEIGHT_PX) | (visibility < LEAST_VISIBILITY), np.bool_)


def evaluate(truth: Sequence[TrueBoxes], found: Sequence[Candidates]) -> Accuracy:
    """Compare images' true boxes with what was found in them, in the same order and in the same pixels.

    The matching and averaging are pycocotools' own. Each class is averaged alone, so a class that is not there is left
    out of the mean.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = _dataset(truth)
        reference.createIndex()
        results = reference.loadRes(_results(found)) if any(len(f.scores) for f in found) else None
        if results is None:
            precision = np.zeros((10, 101, len(CLASSES), 1 + len(SIZES)))
        else:
            precision = _precision(reference, results)
    to_find = [of_image.labels[~of_image.ignored] for of_image in truth]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int32), *to_find]), minlength=len(CLASSES))
    precision[:, :, counts == 0] = -1
    return Accuracy(
        images=len(truth),
        objects=int(counts.sum()),
        counts={name: int(count) for name, count in zip(CLASSES, counts, strict=True)},
        map50=_mean(precision[_IOU_50, :, :, 0]),
        map50_95=_mean(precision[:, :, :, 0]),
        per_class={name: _mean(precision[_IOU_50, :, i, 0]) for i, name in enumerate(CLASSES)},
        per_size={name: _mean(precision[_IOU_50, :, :, i]) for i, name in enumerate(SIZES, start=1)},
    )


def _precision(reference: Any, results: Any) -> NDArray[np.float64]:
    """The table of pycocotools: IoU threshold, recall, class, size (all first)."""
    evaluation = COCOeval(reference, results, "bbox")
    evaluation.params.areaRng = [[0, 1e10], *(list(limits) for limits in SIZES.values())]
    evaluation.params.areaRngLbl = ["all", *SIZES]
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    table: NDArray[np.float64] = evaluation.eval["precision"][..., 0]
    return table


def _iou(box: Float32, boxes: Float32) -> Float32:
    common = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlap: Float32 = common / np.maximum((box[2:] - box[:2]).prod() + areas - common, 1e-9)
    return overlap


def _mean(precision: NDArray[np.float64]) -> float:
    measured = precision[precision >= 0]
    return float(measured.mean()) if measured.size else float("nan")


def _dataset(truth: Sequence[TrueBoxes]) -> dict[str, Any]:
    annotations = [
        {"image_id": image, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": int(ignored)}
        for image, of_image in enumerate(truth)
        for box, label, ignored in zip(_x_y_w_h(of_image.boxes), of_image.labels, of_image.ignored, strict=True)
    ]
    return {
        "images": [{"id": image} for image in range(len(truth))],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
    }


def _results(found: Sequence[Candidates]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": int(label), "bbox": box, "score": float(score)}
        for image, of_image in enumerate(found)
        for box, label, score in zip(_x_y_w_h(of_image.boxes), of_image.labels, of_image.scores, strict=True)
    ]


def _x_y_w_h(boxes: Float32) -> list[list[float]]:
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]
