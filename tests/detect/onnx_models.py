"""Small ONNX detectors for tests: outputs that are given tables, shifted by the mean of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Dimension = int | str
SINGLE = (1, 3, 64, 64)


def write(
    path: Path,
    tables: Mapping[str, NDArray[Any]],
    *,
    shape: Sequence[Dimension] = SINGLE,
    gain: float = 0.0,
    reshape: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a model with one output per table: the table, plus `gain` times the mean of each image.

    A table with a leading axis of 1 has a batch axis. `reshape` writes a fixed shape into the graph, as exporters do.
    """
    nodes, constants, outputs = [], [numpy_helper.from_array(np.array(gain, np.float32), "gain")], []
    nodes += [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1)]
    nodes += [helper.make_node("Mul", ["mean", "gain"], ["shift"])]
    for name, table in tables.items():
        flat = numpy_helper.from_array(np.array([-1] + [1] * (table.ndim - 1), np.int64), f"{name}_flat")
        constants += [flat, numpy_helper.from_array(table.astype(np.float32), f"{name}_table")]
        nodes += [helper.make_node("Reshape", ["shift", flat.name], [f"{name}_shift"])]
        nodes += [helper.make_node("Add", [f"{name}_table", f"{name}_shift"], [f"{name}_sum"])]
        last = f"{name}_sum"
        if reshape is not None:
            constants += [numpy_helper.from_array(np.array(reshape, np.int64), f"{name}_shape")]
            nodes += [helper.make_node("Reshape", [last, f"{name}_shape"], [f"{name}_reshaped"])]
            last = f"{name}_reshaped"
        kind = helper.np_dtype_to_tensor_dtype(table.dtype)
        nodes += [helper.make_node("Cast", [last], [name], to=kind)]
        outputs += [helper.make_tensor_value_info(name, kind, None)]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    return _save(path, nodes, [image], outputs, constants, metadata)


def write_inputs(path: Path, *inputs: tuple[int, Sequence[Dimension]]) -> Path:
    """Write a model that has these inputs, of ONNX type and shape, and passes them through."""
    given = [helper.make_tensor_value_info(f"input{i}", *which) for i, which in enumerate(inputs)]
    outputs = [helper.make_tensor_value_info(f"output{i}", *which) for i, which in enumerate(inputs)]
    nodes = [helper.make_node("Identity", [f"input{i}"], [f"output{i}"]) for i in range(len(inputs))]
    return _save(path, nodes, given, outputs, [], None)


def write_with_nms_inside(path: Path, rows: NDArray[np.float32]) -> Path:
    """Write a model that gives those rows (N, 6) whose score, plus the image's mean, is over 0.5; no batch axis."""
    constants = [
        numpy_helper.from_array(rows, "rows"),
        numpy_helper.from_array(rows[:, 4], "scores"),
        numpy_helper.from_array(np.array(0.5, np.float32), "threshold"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["scores", "mean"], ["shifted"]),
        helper.make_node("Greater", ["shifted", "threshold"], ["over"]),
        helper.make_node("NonZero", ["over"], ["found"]),
        helper.make_node("Reshape", ["found", "flat"], ["indices"]),
        helper.make_node("Gather", ["rows", "indices"], ["detections"], axis=0),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, SINGLE)
    output = helper.make_tensor_value_info("detections", TensorProto.FLOAT, None)
    return _save(path, nodes, [image], [output], constants, None)


def write_with_shortcut(path: Path, shape: Sequence[Dimension]) -> Path:
    """Write a model that adds to the image itself at half its size and back: it takes even sizes only."""
    constants = [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")]
    nodes = [
        helper.make_node("MaxPool", ["images"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["small", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Add", ["images", "large"], ["output"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    return _save(path, nodes, [image], [output], constants, None)


def write_convolutions(path: Path, seed: int = 0) -> Path:
    """Write a small real network, for what depends on arithmetic: three convolutions down to (1, 84, 8)."""
    rng = np.random.default_rng(seed)
    nodes, constants, last, channels = [], [], "images", 3
    for layer, width in enumerate((16, 32, 8)):
        weights = rng.normal(0, (2 / (channels * 9)) ** 0.5, (width, channels, 3, 3)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, f"w{layer}")]
        nodes += [helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], strides=[2, 2], pads=[1, 1, 1, 1])]
        nodes += [helper.make_node("Sigmoid", [f"c{layer}"], [f"s{layer}"])]
        nodes += [helper.make_node("Mul", [f"c{layer}", f"s{layer}"], [f"a{layer}"])]
        last, channels = f"a{layer}", width
    constants += [numpy_helper.from_array(np.array([0, 8, -1], np.int64), "shape")]
    nodes += [helper.make_node("Reshape", [last, "shape"], ["output"])]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 3, 64, 64))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    return _save(path, nodes, [image], [output], constants, None)


def _save(  # noqa: PLR0917 (the parts of an ONNX graph, in its order)
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: list[Any],
    metadata: Mapping[str, str] | None,
) -> Path:
    graph = helper.make_graph(nodes, "detector", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata:
        helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))
    return path
