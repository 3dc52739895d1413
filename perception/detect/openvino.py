"""Detectors on the CPU with OpenVINO: the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13
from openvino.frontend import FrontEndManager

from perception.detect.model import (
    ImageInput,
    Model,
    Port,
    black_image,
    check_file,
    first_of_batch,
    image_input,
    unreadable,
    unusable,
)
from perception.messages import Float32
from perception.stages import InferenceRequest

_WEIGHTED: Final = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_INT8: Final = ("i8", "u8")


def load(path: Path, *, threads: int, cameras: int, input_size: tuple[int, int] | None = None) -> OpenVinoDetector:
    """Load an ONNX detector for `cameras` requests at a time on `threads` threads.

    `input_size` is ``detector.input_size``. Raises `ModelError` and `ConfigError` as `model.check_file` and
    `model.image_input` do, `ModelError` for a model that OpenVINO cannot read, and either as `model.unusable` does.
    """
    check_file(path)
    try:
        model = _read(path)
    except Exception as error:  # noqa: BLE001 (the runtime's errors share no narrower base)
        raise unreadable(path, "OpenVINO", error) from None
    image = image_input(path, [_port(port) for port in model.inputs], input_size)
    options = {
        # Machines with AMX would compute in bfloat16: the same drive has to give the same bytes everywhere.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": min(cameras, threads),
        "INFERENCE_NUM_THREADS": threads,
        # Pinned, two runs on one machine share a core while another idles; unpinned costs nothing measurable.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        image = _reshape(model, image)
        compiled = openvino.Core().compile_model(model, "CPU", options)
        return OpenVinoDetector(path, compiled, image, _metadata(model), _precision(model, compiled))
    except Exception as error:  # noqa: BLE001
        raise unusable(path, image, "OpenVINO", error) from None


class OpenVinoDetector:
    """A compiled model; satisfies `model.Detector`."""

    def __init__(
        self, path: Path, compiled: Any, image: ImageInput, metadata: Mapping[str, str], precision: str
    ) -> None:
        self._compiled = compiled
        outputs = black_image(self.request(), [port.any_name for port in compiled.outputs])
        self.model = Model(path, (image.width, image.height), metadata, outputs)
        streams, threads = (compiled.get_property(key) for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"))
        runtime = f"OpenVINO {openvino.__version__.partition('-')[0]} on the CPU"
        self.notes = (f"{runtime}, {precision}, streams: {streams}, threads: {threads}", *image.notes)

    def request(self) -> InferenceRequest:
        """Create an inference request with buffers of its own."""
        return _Request(self._compiled.create_infer_request())

    def close(self) -> None:
        """Drop the compiled model; requests keep it alive until they go too."""
        self._compiled = None


class _Request:
    """One of OpenVINO's asynchronous requests. Its tensors are the runtime's own memory: nothing is copied."""

    def __init__(self, request: Any) -> None:
        self._request = request
        batch = request.get_input_tensor().data
        batch[...] = 0
        self.input: Float32 = batch[0]

    def submit(self) -> None:
        """Start the inference of what `input` holds; returns at once."""
        self._request.start_async()

    def collect(self) -> tuple[NDArray[Any], ...]:
        """Wait for it; the outputs of one image, valid until the next `submit`."""
        self._request.wait()
        return first_of_batch([tensor.data for tensor in self._request.output_tensors])

    def cancel(self) -> None:
        """End it before its next layer: `collect` raises then."""
        self._request.cancel()


def _precision(model: Any, compiled: Any) -> str:
    """What layers with weights are really computed in, as the compiled graph has it: a plugin may do without INT8."""
    if all(node.get_type_name() != "FakeQuantize" for node in model.get_ops()):
        return "in float32"
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    computed_in = [layer["runtimePrecision"].value for layer in layers if layer["layerType"].value in _WEIGHTED]
    in_int8 = sum(precision in _INT8 for precision in computed_in)
    return f"{in_int8} of {len(computed_in)} weighted layers in INT8, the rest in float32"


def _read(path: Path) -> Any:
    # The front end by name: `Core.read_model` offers a damaged file to those of all other formats too.
    frontend = FrontEndManager().load_by_framework("onnx")
    model = frontend.convert(frontend.load(str(path)))
    _fold_quantisation(model)
    return model


def _fold_quantisation(model: Any) -> None:
    """Make one node of each pair of Q and DQ on an activation, computing the same.

    Left as they come from ONNX, pairs at a concatenation are moved apart when the model is compiled, and lose their
    scale: the concatenation then passes on real values rounded to integers (OpenVINO 2025.4 to 2026.4).
    """
    for quantise in model.get_ops():
        if quantise.get_type_name() != "FakeQuantize":
            continue
        low, high = (quantise.input_value(i).get_node().data for i in (3, 4))
        for dequantise, shift, scale in _dequantised(quantise):
            edges = [opset13.constant((edge - shift) * scale).output(0) for edge in (low, high)]
            source, *limits = (quantise.input_value(i) for i in range(3))
            folded = opset13.fake_quantize(source, *limits, *edges, quantise.get_attributes()["levels"])
            for reader in list(dequantise.output(0).get_target_inputs()):
                reader.replace_source_output(folded.output(0))


def _dequantised(quantise: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The last node of each DQ that reads what was quantised, with its zero point and scale."""
    for to_integer in _readers(quantise, "Convert"):
        for to_float in _readers(to_integer, "Convert"):
            shifted = list(_readers(to_float, "Subtract"))
            for before, shift in [(node, _constant(node)) for node in shifted] or [(to_float, np.float32(0))]:
                for scaled in _readers(before, "Multiply"):
                    scale = _constant(scaled)
                    if shift is not None and scale is not None:
                        yield scaled, shift, scale


def _readers(node: Any, kind: str) -> Iterator[Any]:
    for reader in node.output(0).get_target_inputs():
        if reader.get_node().get_type_name() == kind:
            yield reader.get_node()


def _constant(node: Any) -> Any:
    """The second operand, through a conversion; None where it is computed."""
    operand = node.input_value(1).get_node()
    if operand.get_type_name() == "Convert":
        operand = operand.input_value(0).get_node()
    return operand.data.astype(np.float32) if operand.get_type_name() == "Constant" else None


def _metadata(model: Any) -> dict[str, str]:
    info = model.get_rt_info()
    return {key: value.astype(str) for key, value in info["framework"].items()} if "framework" in info else {}


def _port(port: Any) -> Port:
    shape = tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape)
    return Port(port.any_name, port.element_type == openvino.Type.f32, shape)


def _reshape(model: Any, image: ImageInput) -> ImageInput:
    """Fix the model's input to one image; where that cannot be done, to its own batch size."""
    if image.batch == 1:
        model.reshape(list(image.shape))
        return image
    shapes = [list(port.partial_shape) for port in model.outputs]
    single = image._replace(batch=1)
    try:
        model.reshape(list(single.shape))
    except RuntimeError:
        pass
    else:
        # A batch size written into the graph can also turn up as halved dimensions elsewhere.
        if [list(port.partial_shape) for port in model.outputs] == [[1, *shape[1:]] for shape in shapes]:
            return single
    model.reshape(list(image.shape))
    return image
