"""Small ONNX models to quantise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from perception.messages import Float32
from tests.models import write_colour_detector


def write_residual(path: Path, *, channels: int = 8, size: int = 16, rough: float = 1.0) -> Path:
    """Write conv - relu - (conv + shortcut) - relu - conv; `rough` scales one channel after the first layer."""
    rng = np.random.default_rng(3)

    def weights(name: str, outputs: int, inputs: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, (outputs, inputs, 3, 3)).astype(np.float32), name)

    first = numpy_helper.to_array(weights("w", channels, 3)).copy()
    first[0] *= rough
    constants = [
        numpy_helper.from_array(first, "w0"),
        weights("w1", channels, channels),
        weights("w2", 2, channels),
        *(numpy_helper.from_array(rng.normal(0, 0.1, n).astype(np.float32), f"b{i}") for i, n in enumerate((8, 8, 2))),
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["c0"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["c1", "r0"], ["sum"], name="shortcut"),
        helper.make_node("Relu", ["sum"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["out"], name="last", pads=[1] * 4),
    ]
    image = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, size, size])
    output = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", 2, size, size])
    graph = helper.make_graph(nodes, "residual", [image], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def images(count: int, size: int = 16) -> list[dict[str, Float32]]:
    """Inputs for `write_residual`."""
    rng = np.random.default_rng(4)
    return [{"images": rng.uniform(0, 1, (1, 3, size, size)).astype(np.float32)} for _ in range(count)]


def write_quantisable_detector(path: Path) -> Path:
    """Write the colour detector behind two 1x1 convolutions that change nothing: something to quantise."""
    detector = onnx.load(write_colour_detector(path))
    graph = detector.graph
    identity = numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "identity")
    for node in graph.node:
        node.input[:] = ["looked_through" if name == "images" else name for name in node.input]
    graph.initializer.append(identity)
    graph.node.insert(0, helper.make_node("Conv", ["images", "identity"], ["glass"], name="glass"))
    graph.node.insert(1, helper.make_node("Conv", ["glass", "identity"], ["looked_through"], name="second_glass"))
    onnx.save(detector, path)
    return path
