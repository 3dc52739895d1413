"""Which head a detector has, and how it wants its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.config import DetectorConfig
from perception.detect import labels
from perception.detect.heads import EndToEndHead, Grid, Order, YoloV5Head, YoloV8Head, YoloXHead, grid
from perception.detect.model import Model
from perception.detect.stock import StockHead, output_shapes
from perception.errors import ConfigError, ModelError
from perception.messages import CLASSES, Float32, InputSpec
from perception.stages import Head

HeadName = Literal["stock", "yolov5", "yolov8", "yolox", "end_to_end"]

_CONVENTIONS: Final[Mapping[HeadName, Mapping[str, Any]]] = {
    "stock": {"channel_order": "bgr", "scale": 1.0},
    "yolov5": {"channel_order": "rgb", "scale": 1 / 255},
    "yolov8": {"channel_order": "rgb", "scale": 1 / 255},
    "yolox": {"channel_order": "bgr", "scale": 1.0, "pad_position": "bottom_right"},
    "end_to_end": {"channel_order": "rgb", "scale": 1 / 255},
}
"""How the authors of each family feed their models; ``detector.input`` overrides it, value by value."""

_STRIDES: Final = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_ANCHORS: Final = 3  # boxes per grid cell of YOLOv5 and v7
_TOLERANCE: Final = 0.05  # quantised probabilities leave [0, 1] a little
_KNOWN: Final = (
    "yolov5 (N, 5 + classes), yolox (N, 5 + classes), yolov8 (4 + classes, N), end_to_end (N, 6) or boxes (N, 4) with "
    "scores and labels (N,), stock (perception/detect/stock.py)"
)


class Recognised(NamedTuple):
    """A detector's head, how it wants its images, and what to tell the user once."""

    head: Head
    input_spec: InputSpec
    notes: tuple[str, ...]


def recognise(model: Model, config: DetectorConfig) -> Recognised:
    """Find the head named by ``detector.head``, or with ``auto`` the one that the outputs' shapes show.

    Raises `ModelError` for outputs that fit no known head or that are not boxes in pixels with probabilities,
    `ConfigError` when they fit another head than the one named, and both as `labels.resolve` does.
    """
    name = _head_name(model, config)
    head, label_notes = _head(name, model, config)
    width, height = model.input_size
    spec = InputSpec(width, height, **{**_CONVENTIONS[name], **config.input.model_dump(exclude_none=True)})
    note = (
        f"{name} head ({_shapes(model)}), input {width}x{height} {spec.channel_order}, scale {spec.scale:.3g}, "
        f"padding {spec.pad_position} {spec.pad_value}"
    )
    return Recognised(head, spec, (note, *label_notes))


def _head_name(model: Model, config: DetectorConfig) -> HeadName:
    fitting = [name for name in _CONVENTIONS if _fits(name, model)]
    if not fitting:
        raise ModelError(
            f"{model.path}: no known head has outputs {_shapes(model)} for an input of "
            f"{model.input_size[0]}x{model.input_size[1]}; known, for one image: {_KNOWN}; export it as one of these"
        )
    if config.head == "auto":
        return fitting[0]  # where one fits by its exact number of rows and end_to_end too, it is the former
    if config.head not in fitting:
        raise ConfigError(
            f"detector.head: {config.head}, but the outputs of {model.path} ({_shapes(model)}) are those of "
            f"{fitting[0]}; set it to that or to auto"
        )
    return config.head


def _fits(name: HeadName, model: Model) -> bool:
    if name == "stock":
        return tuple(output.shape for output in model.outputs.values()) == output_shapes(model.input_size)
    outputs = list(model.outputs.values())
    if len(outputs) == 3:
        return name == "end_to_end" and _order(model.outputs) is not None
    if len(outputs) != 1 or outputs[0].ndim != 2:
        return False
    rows, columns = outputs[0].shape
    cells = [len(grid(model.input_size, strides).strides) for strides in _STRIDES]
    fits: Mapping[HeadName, bool] = {
        "yolov5": rows in [_ANCHORS * count for count in cells] and columns > 5,
        "yolov8": columns in cells and rows > 4,
        "yolox": rows in cells and columns > 5,
        "end_to_end": columns == 6,
    }
    return fits[name]


def _head(name: HeadName, model: Model, config: DetectorConfig) -> tuple[Head, tuple[str, ...]]:
    if name == "end_to_end":
        return _end_to_end(model, config)
    if name == "stock":
        label_of, notes = labels.resolve(model, len(CLASSES), config)
        return StockHead(model.input_size, label_of, config.score_threshold), notes
    (output,) = model.outputs.values()
    if name == "yolov8":
        _check(model, boxes=output[:4], scores=output[4:])
        label_of, notes = labels.resolve(model, len(output) - 4, config)
        return YoloV8Head(label_of, config.score_threshold), notes

    label_of, notes = labels.resolve(model, output.shape[1] - 5, config)
    if name == "yolox":
        anchors = next(g for g in (grid(model.input_size, s) for s in _STRIDES) if len(g.strides) == len(output))
        if not _is_decoded(output, anchors):
            _check(model, boxes=None, scores=output[:, 4:])
            return YoloXHead(anchors, label_of, config.score_threshold), notes
        notes = (*notes, "this YOLOX export holds the decoding of its boxes already")
    _check(model, boxes=output[:, :4], scores=output[:, 4:])
    return YoloV5Head(label_of, config.score_threshold), notes


def _end_to_end(model: Model, config: DetectorConfig) -> tuple[Head, tuple[str, ...]]:
    outputs = list(model.outputs.values())
    order = _order(model.outputs)
    if order is None:
        boxes, scores = outputs[0][:, :4], outputs[0][:, 4]
    else:
        boxes, scores = outputs[order.boxes], outputs[order.scores]
    _check(model, boxes=boxes, scores=scores)
    label_of, notes = labels.resolve(model, None, config)
    return EndToEndHead(order, label_of, config.score_threshold), notes


def _order(outputs: Mapping[str, NDArray[Any]]) -> Order | None:
    """Tell three outputs apart: boxes by their shape, labels by an integer type or else by their name."""
    boxes, flat, classes = [], [], []
    for index, (name, output) in enumerate(outputs.items()):
        if output.ndim == 2 and output.shape[1] == 4:
            boxes.append(index)
        elif output.ndim == 1:
            flat.append(index)
            named = any(word in name.lower() for word in ("label", "class", "cls")) and "score" not in name.lower()
            if named or np.issubdtype(output.dtype, np.integer):
                classes.append(index)
    if (len(boxes), len(flat), len(classes)) != (1, 2, 1):
        return None
    return Order(boxes[0], sum(flat) - classes[0], classes[0])


def _is_decoded(output: Float32, anchors: Grid) -> bool:
    """Whether a YOLOX export holds pixels: then centres lie near their anchor points, else all near zero."""
    centres = (anchors.cells + 0.5) * anchors.strides[:, None]
    return bool(np.median(np.abs(output[:, :2] - centres)) < np.median(np.abs(output[:, :2])))


def _check(model: Model, *, boxes: NDArray[Any] | None, scores: NDArray[Any]) -> None:
    """Refuse what would give no error and wrong detections: relative boxes, and logits for scores."""
    scores = scores[np.isfinite(scores)]
    if scores.size and (scores.min() < -_TOLERANCE or scores.max() > 1 + _TOLERANCE):
        raise ModelError(
            f"{model.path}: scores of {scores.min():.3g} to {scores.max():.3g} in outputs {_shapes(model)}; "
            "expected probabilities: export the model with its sigmoid or softmax"
        )
    if boxes is None:
        return
    extent = np.abs(boxes[np.isfinite(boxes)]).max(initial=0)
    if 0 < extent <= 2:
        raise ModelError(
            f"{model.path}: box coordinates up to {extent:.3g} in outputs {_shapes(model)}; "
            "expected pixels of the model's input, not fractions of it: export the model without normalised boxes"
        )


def _shapes(model: Model) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, output.shape))}" for name, output in model.outputs.items())
