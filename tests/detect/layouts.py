"""Known objects in the output layout of every head, for an input of 64x64 pixels: 84 cells at strides 8, 16, 32.

Each writer gives the outputs by name, with the batch axis. The objects lie in rows chosen at random; all other rows
hold low scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.messages import Float32

SIZE: Final = 64
CELLS: Final = 84
CLASS_COUNT: Final = 3

Outputs = Mapping[str, NDArray[Any]]


class Object(NamedTuple):
    """A box as x1 y1 x2 y2 in pixels of the input, its class among the model's, and its score."""

    box: tuple[float, float, float, float]
    class_index: int
    score: float


def yolov5(objects: Sequence[Object]) -> Outputs:
    output = background(3 * CELLS, 5 + CLASS_COUNT)
    for row, found in zip(places(3 * CELLS, objects), objects, strict=True):
        output[row, :4] = centre_and_size(found)
        output[row, 4] = 0.98
        output[row, 5 + found.class_index] = found.score / 0.98
    return {"output": output[None]}


def yolox_decoded(objects: Sequence[Object]) -> Outputs:
    output = background(CELLS, 5 + CLASS_COUNT)
    output[:, :2] = (cells()[:, :2] + 0.5) * cells()[:, 2:]
    for row, found in zip(places(CELLS, objects), objects, strict=True):
        output[row, :4] = centre_and_size(found)
        output[row, 4] = found.score
        output[row, 5 + found.class_index] = 1.0
    return {"output": output[None]}


def yolox(objects: Sequence[Object]) -> Outputs:
    output = yolox_decoded(objects)["output"][0].copy()
    stride = cells()[:, 2:]
    output[:, :2] = output[:, :2] / stride - cells()[:, :2]
    output[:, 2:4] = np.log(output[:, 2:4] / stride)
    return {"output": output[None]}


def yolov8(objects: Sequence[Object]) -> Outputs:
    output = background(CELLS, 4 + CLASS_COUNT)
    for row, found in zip(places(CELLS, objects), objects, strict=True):
        output[row, :4] = centre_and_size(found)
        output[row, 4 + found.class_index] = found.score
    return {"output0": output.T[None]}


def end_to_end(objects: Sequence[Object]) -> Outputs:
    output = background(30, 6)
    for row, found in zip(places(30, objects), objects, strict=True):
        output[row] = (*found.box, found.score, found.class_index)
    return {"output0": output[None]}


def boxes_scores_labels(objects: Sequence[Object]) -> Outputs:
    output = end_to_end(objects)["output0"]
    return {"labels": output[..., 5].astype(np.int64), "boxes": output[..., :4], "scores": output[..., 4]}


LAYOUTS: Final[Mapping[str, Callable[[Sequence[Object]], Outputs]]] = {
    "yolov5": yolov5,
    "yolov8": yolov8,
    "yolox": yolox,
    "yolox_decoded": yolox_decoded,
    "end_to_end": end_to_end,
    "boxes_scores_labels": boxes_scores_labels,
}


def background(rows: int, columns: int) -> Float32:
    """Boxes all over the input, with next to no score in every later column."""
    rng = np.random.default_rng(3)
    output = rng.uniform(0, 0.05, (rows, columns))
    output[:, :2] = rng.uniform(5, 60, (rows, 2))
    output[:, 2:4] = rng.uniform(5, 60, (rows, 2))
    return output.astype(np.float32)


def places(rows: int, objects: Sequence[Object]) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(4).choice(rows, len(objects), replace=False))


def centre_and_size(found: Object) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = found.box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def cells() -> Float32:
    """Column, row and stride of every anchor point, in the order of a YOLO's outputs."""
    return np.array([(x, y, s) for s in (8, 16, 32) for y in range(SIZE // s) for x in range(SIZE // s)], np.float32)
