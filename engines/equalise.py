"""Channels brought to like ranges before they share one INT8 scale.

A ReLU lets positive factors through, so the channel of an activation may be divided by one where it is made, and the
weights that read it multiplied: the float model computes the same (Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction"). The factors share the burden between activation and weights by halves, as in
SmoothQuant (Xiao et al. 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from perception.messages import Float32

_HOMOGENEOUS: Final = ("Relu", "LeakyRelu")
_LEAST_RANGE: Final = 1e-3  # of the largest channel's: channels that never speak are left as they are


class Junction(NamedTuple):
    """An activation by name, with the convolution that makes it and those that read it, and nothing else."""

    activation: str
    maker: onnx.NodeProto
    readers: tuple[onnx.NodeProto, ...]


def junctions(model: onnx.ModelProto) -> list[Junction]:
    """Where factors can be moved: from a convolution through a ReLU into convolutions, each with weights of its own.

    Not where what would be scaled is an output of the model.
    """
    graph = model.graph
    uses = Counter(name for node in graph.node for name in node.input)
    own = {tensor.name for tensor in graph.initializer if uses[tensor.name] == 1}
    makers = {output: node for node in graph.node for output in node.output}
    outputs = {port.name for port in graph.output}

    def is_free(node: onnx.NodeProto | None) -> bool:
        if node is None or node.op_type != "Conv" or not own.issuperset(node.input[1:]):
            return False
        return all(a.i == 1 for a in node.attribute if a.name == "group")

    found = []
    for node in graph.node:
        if node.op_type not in _HOMOGENEOUS or uses[node.input[0]] != 1 or node.output[0] in outputs:
            continue
        maker = makers.get(node.input[0])
        readers = tuple(reader for reader in graph.node if node.output[0] in reader.input)
        if (
            maker is not None
            and outputs.isdisjoint(maker.output)
            and is_free(maker)
            and readers
            and all(map(is_free, readers))
        ):
            found.append(Junction(node.output[0], maker, readers))
    return found


def equalise(model: onnx.ModelProto, inputs: Iterable[Mapping[str, Float32]]) -> tuple[onnx.ModelProto, list[str]]:
    """A model that computes the same from channels of like ranges, measured on `inputs`; the activations changed."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    found = junctions(copied)
    ranges = _ranges(model, [junction.activation for junction in found], inputs)
    weights = {tensor.name: tensor for tensor in copied.graph.initializer}
    for junction in found:
        factors = _factors(ranges[junction.activation], [_array(weights, r.input[1]) for r in junction.readers])
        for name in junction.maker.input[1:]:
            _scale(weights[name], np.float32(1) / factors, axis=0)
        for reader in junction.readers:
            _scale(weights[reader.input[1]], factors, axis=1)
    return copied, [junction.activation for junction in found]


def _factors(activation: Float32, readers: Sequence[Float32]) -> Float32:
    """For each channel the root of its range over that of the weights that read it, each beside its largest sibling."""
    shares = [np.abs(weights).max(axis=(2, 3)) for weights in readers]
    shares = [share / np.maximum(share.max(axis=1, keepdims=True), 1e-12) for share in shares]
    weight = np.max([share.max(axis=0) for share in shares], axis=0)
    speaks = (activation > _LEAST_RANGE * activation.max()) & (weight > _LEAST_RANGE)
    factors = np.sqrt(activation / np.maximum(activation.max(), 1e-12) / np.maximum(weight, _LEAST_RANGE))
    return np.where(speaks, factors, 1.0).astype(np.float32)


def _ranges(
    model: onnx.ModelProto, activations: Sequence[str], inputs: Iterable[Mapping[str, Float32]]
) -> dict[str, Float32]:
    """The largest absolute value of each channel (C,), by activation."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in activations)
    ranges: dict[str, Float32] = {}
    if not activations:
        return ranges
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    for one in inputs:
        for name, values in zip(activations, session.run(None, dict(one)), strict=True):
            seen = np.abs(values).max(axis=(0, 2, 3))
            ranges[name] = np.maximum(ranges[name], seen) if name in ranges else seen
    return ranges


def _array(weights: Mapping[str, onnx.TensorProto], name: str) -> Float32:
    return np.asarray(numpy_helper.to_array(weights[name]), np.float32)


def _scale(tensor: onnx.TensorProto, factors: Float32, *, axis: int) -> None:
    values = numpy_helper.to_array(tensor)
    shape = [1] * values.ndim
    shape[axis] = -1
    scaled = (values * factors.reshape(shape)).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
