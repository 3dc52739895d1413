"""Launches of heads.cu: the raw outputs of one camera's engine context to a list of candidates on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from perception.cuda import Launch, Workspace, blocks, kernels
from perception.cuda.compaction import Chosen, DeviceList, KernelsByName, select, take
from perception.detect.gpu_engine import DeviceTensor
from perception.detect.heads import EndToEndHead, Order, YoloV5Head, YoloV8Head, YoloXHead
from perception.detect.stock import MOST_CANDIDATES, SCORES, SIZE_MEANS, StockHead
from perception.errors import ModelError
from perception.stages import Head

_THREADS: Final = 128
_CLASS_KERNELS: Final = {"float32": "f32", "int32": "i32", "int64": "i64"}


class Decoding(NamedTuple):
    """What decodes an inference: the `launches`, in order, and the list that they leave."""

    launches: tuple[Launch, ...]
    found: DeviceList


class _Kernel(NamedTuple):
    """The kernel of a head, what it reads, and how many rows it gives; no more than `most` of them are kept."""

    name: str
    args: tuple[Any, ...]
    rows: int
    most: int
    has_attributes: bool = False


def decode(head: Head, outputs: Sequence[DeviceTensor], known: KernelsByName, workspace: Workspace) -> Decoding:
    """Settle how the outputs of one image are decoded: by the same rules as `head` does on the CPU.

    Raises `ModelError` for outputs of a type that the kernels do not read.
    """
    kernel = _kernel(head, outputs, workspace)
    every = _list(workspace, kernel.rows, kernel)
    best = _list(workspace, min(kernel.rows, kernel.most), kernel)
    keys = workspace.array(kernel.rows, np.uint32)
    chosen = Chosen(workspace.array(best.capacity, np.int32), best.count, best.capacity)

    tables = (every.candidates,) if every.attributes is None else (every.candidates, every.attributes)
    grid = blocks(kernel.rows, _THREADS), 1, 1
    launches = (
        known[kernel.name].prepare(grid, (_THREADS, 1, 1), *kernel.args, *tables, keys),
        select(known, keys, kernel.rows, chosen),
        *take(known, every, chosen, best),
    )
    return Decoding(launches, best)


def _list(workspace: Workspace, capacity: int, kernel: _Kernel) -> DeviceList:
    candidates = workspace.array(capacity, kernels.CANDIDATE)
    attributes = workspace.array(capacity, kernels.ATTRIBUTES) if kernel.has_attributes else None
    return DeviceList(candidates, attributes, workspace.array(1, np.int32), capacity)


def _kernel(head: Head, outputs: Sequence[DeviceTensor], workspace: Workspace) -> _Kernel:
    if isinstance(head, EndToEndHead):
        return _end_to_end(head, outputs, workspace)
    _check_float32(outputs)
    if isinstance(head, StockHead):
        return _stock(head, outputs, workspace)
    assert isinstance(head, YoloV5Head | YoloXHead | YoloV8Head), f"no kernel for {type(head).__name__}"  # noqa: S101
    label_of, threshold = workspace.constant(head.label_of), np.float32(head.score_threshold)
    pointer, shape = outputs[0].pointer, outputs[0].shape[-2:]
    if isinstance(head, YoloV8Head):
        rows = shape[1]
        args: tuple[Any, ...] = pointer, np.int32(rows), np.int32(shape[0] - 4), label_of, threshold
        return _Kernel("decode_yolov8", args, rows, rows)
    rows, sizes = shape[0], (np.int32(shape[0]), np.int32(shape[1] - 5))
    if isinstance(head, YoloV5Head):
        return _Kernel("decode_yolov5", (pointer, *sizes, label_of, threshold), rows, rows)
    grid = workspace.constant(head.grid.cells), workspace.constant(head.grid.strides)
    return _Kernel("decode_yolox", (pointer, *sizes, *grid, label_of, threshold), rows, rows)


def _stock(head: StockHead, outputs: Sequence[DeviceTensor], workspace: Workspace) -> _Kernel:
    scores, regression = outputs
    locations_down, locations_across, channels = scores.shape[-3:]
    rows = locations_down * locations_across * channels // SCORES
    args = (
        scores.pointer,
        regression.pointer,
        np.int32(rows),
        np.int32(locations_across),
        workspace.constant(head.label_of),
        np.float32(head.least_logit),
        workspace.constant(SIZE_MEANS),
    )
    return _Kernel("decode_stock", args, rows, MOST_CANDIDATES, has_attributes=True)


def _end_to_end(head: EndToEndHead, outputs: Sequence[DeviceTensor], workspace: Workspace) -> _Kernel:
    order = head.order or Order(0, 0, 0)
    boxes, scores, classes = (outputs[i] for i in order)
    _check_float32((boxes, scores))
    if classes.dtype.name not in _CLASS_KERNELS:
        raise ModelError(f"output {classes.name} is {classes.dtype}; labels are read as {', '.join(_CLASS_KERNELS)}")
    if head.order is None:  # columns of one output: x1 y1 x2 y2 score label
        rows, step = boxes.shape[-2:]
        column = boxes.dtype.itemsize
        places = (boxes.pointer, step), (boxes.pointer + 4 * column, step), (boxes.pointer + 5 * column, step)
    else:
        rows = boxes.shape[-2]
        places = (boxes.pointer, 4), (scores.pointer, 1), (classes.pointer, 1)
    steps = [value for pointer, step in places for value in (pointer, np.int32(step))]
    label_of, threshold = workspace.constant(head.label_of), np.float32(head.score_threshold)
    args = (*steps, np.int32(rows), np.int32(len(head.label_of)), label_of, threshold)
    return _Kernel(f"decode_end_to_end_{_CLASS_KERNELS[classes.dtype.name]}", args, rows, rows)


def _check_float32(outputs: Sequence[DeviceTensor]) -> None:
    for output in outputs:
        if output.dtype != np.float32:
            raise ModelError(
                f"output {output.name} is {output.dtype}; expected float32: export the model with float32 outputs"
            )
