"""A detector for the drives of `tests/drives.py`: finds the one red, the one blue and the one green rectangle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.messages import Float32

THRESHOLD = 0.2


def write_colour_detector(path: Path, image_size: tuple[int, int] = (320, 192)) -> Path:
    """Write an end-to-end ONNX detector: (1, 3, 6) of x1 y1 x2 y2 score label for (car, truck, person).

    A pixel belongs to a class when its colour stands out of the other two; the box is the extent of those pixels.
    """
    width, height = image_size
    nodes, constants = [], {}

    def constant(name: str, value: Float32) -> str:
        constants[name] = numpy_helper.from_array(value.astype(np.float32), name)
        return name

    constant("threshold", np.array(THRESHOLD))
    axes = {"x": np.arange(width, dtype=np.float32)[None, :], "y": np.arange(height, dtype=np.float32)[:, None]}
    for axis, positions in axes.items():
        length = positions.size
        constant(f"{axis}_after", np.broadcast_to(positions + 1, (1, 1, height, width)))
        constant(f"{axis}_before", np.broadcast_to(length - positions, (1, 1, height, width)))
        constant(f"{axis}_length", np.array(float(length)))
    nodes.append(helper.make_node("Split", ["images"], ["red", "green", "blue"], axis=1, num_outputs=3))
    rows = []
    for label, (colour, *others) in enumerate(
        (("red", "green", "blue"), ("blue", "red", "green"), ("green", "red", "blue"))
    ):
        mask = f"mask_{label}"
        constant(f"label_{label}", np.full((1, 1), label))
        nodes += [
            helper.make_node("Max", others, [f"{mask}_others"]),
            helper.make_node("Sub", [colour, f"{mask}_others"], [f"{mask}_contrast"]),
            helper.make_node("Greater", [f"{mask}_contrast", "threshold"], [f"{mask}_bool"]),
            helper.make_node("Cast", [f"{mask}_bool"], [mask], to=TensorProto.FLOAT),
            helper.make_node("Mul", [mask, "score"], [f"{mask}_scored"]),
        ]
        parts = []
        for name, factor, complement in (
            ("x1", "x_before", "x_length"),
            ("y1", "y_before", "y_length"),
            ("x2", "x_after", ""),
            ("y2", "y_after", ""),
        ):
            part = f"{name}_{label}"
            nodes += [
                helper.make_node("Mul", [mask, factor], [f"{part}_positions"]),
                helper.make_node("ReduceMax", [f"{part}_positions"], [f"{part}_4d"], keepdims=1),
                helper.make_node("Reshape", [f"{part}_4d", "one_by_one"], [f"{part}_extreme"]),
            ]
            if complement:
                nodes.append(helper.make_node("Sub", [complement, f"{part}_extreme"], [part]))
            parts.append(part if complement else f"{part}_extreme")
        nodes += [
            helper.make_node("ReduceMax", [f"{mask}_scored"], [f"score_4d_{label}"], keepdims=1),
            helper.make_node("Reshape", [f"score_4d_{label}", "one_by_one"], [f"score_{label}"]),
            helper.make_node("Concat", [*parts, f"score_{label}", f"label_{label}"], [f"row_{label}"], axis=1),
        ]
        rows.append(f"row_{label}")
    constant("score", np.array(0.9))
    constants["one_by_one"] = numpy_helper.from_array(np.array([1, 1], np.int64), "one_by_one")
    constants["batch"] = numpy_helper.from_array(np.array([1, 3, 6], np.int64), "batch")
    nodes += [
        helper.make_node("Concat", rows, ["rows"], axis=0),
        helper.make_node("Reshape", ["rows", "batch"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 6])],
        list(constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'car', 1: 'truck', 2: 'person'}"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
