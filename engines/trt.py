"""From an ONNX file to a serialised engine: all that is asked of TensorRT's parser and builder.

The network is strongly typed: what computes in INT8 is what the model's Q/DQ nodes say, and nothing else. Names of
flags are looked up, since TensorRT 10.3 to 11 and TensorRT for RTX differ in which they have.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, TextIO

from rich.progress import Progress, TaskID

from engines import layers
from perception.config import EngineConfig
from perception.detect.model import ImageInput, Port, image_input
from perception.detect.plan_manifest import Layer, TensorInfo
from perception.detect.tensorrt_library import Library
from perception.errors import BackendError, ModelError

Size = tuple[int, int]

_WEIGHTED: Final = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_WITHOUT_DLA: Final = ((10, 8), (11, 4, 1))  # from the first of these on, until the second
_FLAGS: Final = {"sparsity": "SPARSE_WEIGHTS", "version_compatible": "VERSION_COMPATIBLE"}
_ON_DLA: Final = "DLA"  # the kind of a layer in the table
_OUTPUT_TYPES: Final = ("float32", "int32", "int64")  # what the kernels read
_DETAIL: Final = re.compile(r"Error Code \d+: [^(]*\((.*?)\.?(?: In \w+ at \S+)?\)$")
_TYPES: Final = {"float": "float32", "half": "float16", "bf16": "bfloat16"}


class Network(NamedTuple):
    """A parsed model, its shapes fixed: what the builder is to build, and what of it is to be in INT8."""

    builder: Any
    definition: Any
    image: ImageInput
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    quantised: tuple[str, ...]
    quantisers: tuple[str, ...]


class Plan(NamedTuple):
    """A serialised engine, its layers, and how long it took."""

    data: bytes
    layers: tuple[Layer, ...]
    build_s: float


class BuildLog:
    """All that the library says, in a file; its errors, its warnings, and the table of layers are kept at hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[str] = []
        self.warnings = 0
        self.table = ""
        self._file: TextIO = path.open("w", encoding="utf-8")

    def __call__(self, severity: str, message: str) -> None:
        """Take down one message."""
        self._file.write(f"{severity}: {message}\n")
        if severity in ("ERROR", "INTERNAL_ERROR") and not _is_about_no_gpu(message):
            self.errors.append(message)
        elif severity == "WARNING":
            self.warnings += 1
        elif message.startswith(layers.TABLE):
            self.table = message

    def __enter__(self) -> BuildLog:  # noqa: PYI034 (Python 3.10 has no Self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def parse(library: Library, log: BuildLog, model: Path, size: Size | None) -> Network:
    """Parse an ONNX file and fix its input to one image; `size` is ``detector.input_size``.

    Raises `ModelError`, a line for each node that TensorRT does not take, and for an output without a fixed shape.
    """
    trt = library.module
    logger = library.logger(log)
    builder = trt.Builder(logger)
    definition = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse_from_file(str(model)):
        refusals = (_refusal(parser.get_error(number)) for number in range(parser.num_errors))
        raise ModelError("\n".join(f"{model}: {library.title} does not take {reason}" for reason in refusals))
    inputs = [definition.get_input(number) for number in range(definition.num_inputs)]
    image = image_input(model, [_port(trt, tensor) for tensor in inputs], size)
    inputs[0].shape = image.shape
    outputs = [_info(definition.get_output(number)) for number in range(definition.num_outputs)]
    for output in outputs:
        if -1 in output.shape:
            raise ModelError(
                f"{model}: the shape of output {output.name} depends on what is in the image; "
                "export it without such a suppression of overlaps, or with one of fixed size"
            )
        if output.type not in _OUTPUT_TYPES:
            raise ModelError(f"{model}: output {output.name} is {output.type}; expected {' or '.join(_OUTPUT_TYPES)}")
    quantised, quantisers = _quantisation(definition)
    return Network(builder, definition, image, (_info(inputs[0]),), tuple(outputs), quantised, quantisers)


def build(
    library: Library, log: BuildLog, network: Network, engine: EngineConfig, *, timing_cache: Path | None, monitor: Any
) -> Plan:
    """Build the engine of a parsed model; `monitor` is an ``IProgressMonitor``. Keeps what was timed in `timing_cache`.

    Raises `BackendError` for what the library or the machine cannot do, `ModelError` when the build fails.
    """
    began = time.perf_counter()
    config = _configure(library, network.builder, engine)
    config.progress_monitor = monitor
    if library.flavor == "rtx":
        timing_cache = None  # it times nothing: kernels are chosen on the GPU that it runs on
    with _timing_cache(config, timing_cache):
        data = network.builder.build_serialized_network(network.definition, config)
    if data is None:
        reason = _reason(log.errors[-1:]) or "it does not say why"
        raise ModelError(f"{library.title} cannot build the engine: {reason}; all that it said is in {log.path}")
    table = layers.read_table(log.table)
    if engine.dla_core is not None:
        _check_dla(library, table)
    return Plan(bytes(memoryview(data)), table, time.perf_counter() - began)


def progress_monitor(library: Library, progress: Progress, cancelled: Callable[[], bool]) -> Any:
    """An ``IProgressMonitor`` that shows a bar for each phase at work; when `cancelled`, the build is given up."""
    base = library.module.IProgressMonitor
    bars: dict[str, tuple[TaskID, int]] = {}  # with how deep a phase lies in others

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # super() would not reach the C++ part

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            depth = bars[parent][1] + 1 if parent in bars else 0
            bars[phase] = progress.add_task("  " * depth + phase, total=steps), depth

        def step_complete(self, phase: str, step: int) -> bool:
            progress.update(bars[phase][0], completed=step + 1)
            return not cancelled()

        def phase_finish(self, phase: str) -> None:
            progress.remove_task(bars.pop(phase)[0])

    return Monitor()


def _strongly_typed(trt: Any) -> int:
    """The flag, where there is one: TensorRT 11 knows nothing else and may drop it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(library: Library, builder: Any, engine: EngineConfig) -> Any:
    trt = library.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, engine.workspace_mb << 20)
    config.builder_optimization_level = engine.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the table of layers
    # TensorFloat-32, on unless cleared, rounds float32 to 10 bits: results would not be those of the CPU.
    config.clear_flag(trt.BuilderFlag.TF32)
    for key, flag in _FLAGS.items():
        if getattr(engine, key):
            config.set_flag(_lookup(library, "BuilderFlag", flag, key))
    if engine.version_compatible:
        _refuse_rtx(library, "version_compatible", "it comes without the lean runtime that such a plan carries")
    if engine.hardware_compatible != "none":
        _refuse_rtx(library, "hardware_compatible", "its plans run on every GPU that it supports as they are")
        level = engine.hardware_compatible.upper()
        config.hardware_compatibility_level = _lookup(
            library, "HardwareCompatibilityLevel", level, "hardware_compatible"
        )
    if engine.dla_core is not None:
        _use_dla(library, builder, config, engine.dla_core)
    return config


def _lookup(library: Library, enum: str, name: str, key: str) -> Any:
    found = getattr(getattr(library.module, enum), name, None)
    if found is None:
        raise BackendError(f"engine.{key}: {library.title} has no {enum}.{name}; leave it out of the config")
    return found


def _refuse_rtx(library: Library, key: str, reason: str) -> None:
    if library.flavor == "rtx":
        raise BackendError(f"engine.{key}: not with {library.title}: {reason}; leave it out of the config")


def _use_dla(library: Library, builder: Any, config: Any, core: int) -> None:
    """Put what it can on a DLA core, the rest on the GPU (NVIDIA, "Working with DLA" of TensorRT 11.4.1).

    TensorRT up to 10.7 has DLA too, though for strongly typed networks it is documented from 11.4.1 on only: whether it
    was of use is for `_check_dla` to say.
    """
    trt = library.module
    _refuse_rtx(library, "dla_core", "DLA is on Orin, which it does not support")
    if _WITHOUT_DLA[0] <= library.numbers < _WITHOUT_DLA[1]:
        raise BackendError(
            f"engine.dla_core: {library.title} does not support DLA; TensorRT from 11.4.1 on does, on Orin: "
            "set engine.dla_core: null to run on the GPU"
        )
    if core >= builder.num_DLA_cores:
        raise BackendError(
            f"engine.dla_core: {core}, but this machine has {builder.num_DLA_cores} DLA cores, counted from 0; "
            "set engine.dla_core: null to run on the GPU"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(_lookup(library, "BuilderFlag", "GPU_FALLBACK", "dla_core"))


def _check_dla(library: Library, table: Sequence[Layer]) -> None:
    """Refuse a plan that leaves the DLA idle: the builder falls back to the GPU layer by layer, for all of them too."""
    if not any(layer.kind == _ON_DLA for layer in table):
        raise BackendError(
            f"engine.dla_core: {library.title} puts no layer of this model on the DLA, which takes INT8 and FP16 only, "
            "and strongly typed networks from TensorRT 11.4.1 on; set engine.dla_core: null to run on the GPU"
        )


@contextmanager
def _timing_cache(config: Any, path: Path | None) -> Iterator[None]:
    """What was timed in earlier builds need not be timed again; one of another GPU or version is not used."""
    if path is None:
        yield
        return
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):  # noqa: FBT003 (ignore_mismatch)
        config.set_timing_cache(config.create_timing_cache(b""), False)  # noqa: FBT003
    yield
    partial = path.with_suffix(".partial")
    partial.write_bytes(bytes(memoryview(config.get_timing_cache().serialize())))
    partial.replace(path)


def _quantisation(definition: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers with weights whose input and weights come dequantised, and the layers that quantise or dequantise."""
    kinds: dict[str, str] = {}  # of the layer that makes a tensor, by the tensor's name
    every = [definition.get_layer(number) for number in range(definition.num_layers)]
    for layer in every:
        for number in range(layer.num_outputs):
            kinds[layer.get_output(number).name] = layer.type.name
    quantised = (
        layer.name
        for layer in every
        if layer.type.name in _WEIGHTED and all(kinds.get(name) == "DEQUANTIZE" for name in _first_two(layer))
    )
    return tuple(quantised), tuple(layer.name for layer in every if layer.type.name in ("QUANTIZE", "DEQUANTIZE"))


def _first_two(layer: Any) -> Iterator[str]:
    """The names of what it multiplies: its input and its weights; the latter need not be a tensor."""
    for number in range(2):
        tensor = layer.get_input(number) if number < layer.num_inputs else None
        yield "" if tensor is None else tensor.name


def _refusal(error: Any) -> str:
    """What the parser refused, in one line: the node, its operator, and the reason."""
    return f"node {error.node_name()} ({error.node_operator()}): {_reason(error.desc().splitlines())}"


def _reason(lines: Sequence[str]) -> str:
    """The most telling of the lines: what stands in brackets behind an error code, without the place in the source."""
    telling = [line.strip() for line in lines if line.strip() and not _is_about_no_gpu(line)]
    details = [match[1] for match in map(_DETAIL.search, telling) if match]
    return next(iter(details or telling), "")


def _is_about_no_gpu(message: str) -> bool:
    """Without a GPU every failure is followed by one of these."""
    return "catchCudaError" in message


def _port(trt: Any, tensor: Any) -> Port:
    shape = tuple(None if axis < 0 else int(axis) for axis in tensor.shape)
    return Port(tensor.name, tensor.dtype == trt.DataType.FLOAT, shape)


def _info(tensor: Any) -> TensorInfo:
    name = tensor.dtype.name.lower()
    return TensorInfo(name=tensor.name, type=_TYPES.get(name, name), shape=tuple(int(axis) for axis in tensor.shape))
