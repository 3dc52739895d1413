"""Explicit INT8: Q/DQ nodes where TensorRT fuses them, with ranges measured on real activations.

Only the inputs and the weights of convolutions and matrix products are quantised, symmetrically, weights per output
channel; biases, activation functions and what lies between stay as they are. So a convolution, its activation and
the addition of a shortcut reach the builder as one group: the shortcut's branch comes through the Q/DQ it shares with
the next convolution, the other branch directly (NVIDIA, "Working with Quantized Types", Q/DQ placement
recommendations). TensorRT moves the Q after a concatenation, pooling or resize in front of it by itself.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from perception.detect.model import check_file
from perception.errors import ModelError
from perception.messages import Float32

Method = Literal["entropy", "minmax", "percentile"]

QUANTISED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_METHODS: Final[Mapping[Method, tuple[CalibrationMethod, Mapping[str, Any]]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {"num_bins": 2048, "num_quantized_bins": 128}),
    "percentile": (CalibrationMethod.Percentile, {"num_bins": 2048, "percentile": 99.99}),
}
_OPTIONS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,  # TensorRT refuses an int32 bias
    "OpTypesToExcludeOutputQuantization": list(QUANTISED),
}
_LEAST_STD: Final = 0.03
"""Of a channel: less is how a score moves that never speaks, or a constant, and would be told for noise."""
_LEAST_OPSET: Final = 13  # per-channel DequantizeLinear


def read(path: Path) -> onnx.ModelProto:
    """Load a model, infer its shapes, name its nodes; raises `ModelError` for what cannot be quantised."""
    check_file(path)
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    except Exception as error:  # noqa: BLE001 (protobuf and onnx share no narrower base)
        raise ModelError(f"{path}: no sound ONNX model ({type(error).__name__}); export it again") from None
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _LEAST_OPSET)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelError(f"{path}: quantised already; pass the float model")
    batch = _batch(model)
    if batch > 1:
        raise ModelError(
            f"{path}: only takes {batch} images at once, calibration has one; export it with a batch size of 1 or a "
            "dynamic one"
        )
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    if not quantisable(model):
        raise ModelError(f"{path}: no {', '.join(QUANTISED)} with constant weights in it; nothing to quantise")
    return model


def _batch(model: onnx.ModelProto) -> int:
    """The batch size that the model's input is fixed at; 0 where it is open."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    return dimensions[0].dim_value if dimensions else 0


def quantisable(model: onnx.ModelProto) -> list[str]:
    """The nodes with weights to quantise, in the order of the graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    return [n.name for n in model.graph.node if n.op_type in QUANTISED and n.input[1] in constants]


def output_layers(model: onnx.ModelProto) -> list[str]:
    """The last layers before the outputs: what they compute is the result, so it keeps its precision."""
    makers = {output: node for node in model.graph.node for output in node.output}
    with_weights = set(quantisable(model))
    found, seen = set(), set()
    pending = [output.name for output in model.graph.output]
    while pending:
        name = pending.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.name in with_weights:
            found.add(node.name)
        else:
            pending += node.input
    return [name for name in quantisable(model) if name in found]


def measure_ranges(model: onnx.ModelProto, inputs: Iterable[Mapping[str, Float32]], method: Method) -> TensorsData:
    """Run the float model on calibration inputs, one at a time, and find the range of each activation.

    What is kept per activation is a range (minmax) or a histogram (entropy: the threshold with the least
    Kullback-Leibler divergence, Migacz 2017; percentile: 99.99 % of the values), so memory does not grow with the
    inputs. ONNX Runtime's entropy spreads its 128 levels over both signs, of which a ReLU leaves one: it clips more
    than Migacz would.
    """
    kind, options = _METHODS[method]
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        source = Path(scratch) / "float.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            source, QUANTISED, str(Path(scratch) / "observed.onnx"), kind, extra_options={"symmetric": True, **options}
        )
        for one in inputs:
            calibrator.collect_data(_Once(one))
        ranges: TensorsData = calibrator.compute_data()
    return ranges


def quantise(model: onnx.ModelProto, ranges: TensorsData, left_out: Collection[str]) -> onnx.ModelProto:
    """The INT8 model: all `quantisable` nodes but those left out."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[name for name in quantisable(model) if name not in left_out],
        nodes_to_exclude=list(left_out),
        op_types_to_quantize=list(QUANTISED),
        extra_options=dict(_OPTIONS),
    )
    quantizer.quantize_model()
    quantised: onnx.ModelProto = quantizer.model.model
    onnx.helper.set_model_props(quantised, {p.key: p.value for p in model.metadata_props})
    return quantised


def sensitivity(
    model: onnx.ModelProto, ranges: TensorsData, candidates: Sequence[str], inputs: Sequence[Mapping[str, Float32]]
) -> Iterator[tuple[str, float]]:
    """For each candidate, the noise in the outputs when it alone is quantised: a part of the outputs' variance."""
    reference = _run(model, inputs)
    everything = set(quantisable(model))
    for name in candidates:
        yield name, noise(reference, _run(quantise(model, ranges, everything - {name}), inputs))


def noise(reference: Sequence[NDArray[Any]], measured: Sequence[NDArray[Any]]) -> float:
    """The mean square difference over the variance (see `variance`), averaged over the outputs, each (inputs, ...)."""
    parts = [
        float(np.mean((b - a) ** 2 / variance(a), dtype=np.float64)) for a, b in zip(reference, measured, strict=True)
    ]
    return float(np.mean(parts))


def variance(output: NDArray[Any]) -> NDArray[np.float64]:
    """What differences in an output (inputs, ...) are measured by, in a shape that broadcasts over it.

    In a table (inputs, 1, N, C) or (inputs, 1, C, N) it is each channel's own: boxes in pixels and scores up to 1 stand
    side by side there, and in the variance of both no score would count. Elsewhere it is that of all the values.
    """
    if output.ndim != 4:
        return np.asarray(max(float(np.var(output, dtype=np.float64)), 1e-12))
    others = tuple(axis for axis in range(4) if axis != 1 + channel_axis(output.shape[1:]))
    own: NDArray[np.float64] = np.var(output, axis=others, keepdims=True, dtype=np.float64)
    return np.maximum(own, _LEAST_STD**2)


def channel_axis(shape: tuple[int, ...]) -> int:
    """The axis of the channels in a table (1, N, C) or (1, C, N): there are fewer of them than of boxes."""
    return 1 if shape[1] < shape[2] else 2


def compare(model: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Sequence[Mapping[str, Float32]]) -> float:
    """The noise in the outputs of the whole INT8 model."""
    return noise(_run(model, inputs), _run(quantised, inputs))


class _Once:
    """A calibration reader of one input."""

    def __init__(self, one: Mapping[str, Float32]) -> None:
        self._pending: Mapping[str, Float32] | None = one

    def get_next(self) -> Mapping[str, Float32] | None:
        one, self._pending = self._pending, None
        return one


def _run(model: onnx.ModelProto, inputs: Sequence[Mapping[str, Float32]]) -> list[NDArray[Any]]:
    """The outputs over all inputs, by output, stacked."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), _quiet(), providers=["CPUExecutionProvider"])
    runs = [session.run(None, dict(one)) for one in inputs]
    return [np.stack(of_output) for of_output in zip(*runs, strict=True)]


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return options
