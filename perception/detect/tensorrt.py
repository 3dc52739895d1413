"""Detectors on the GPU with TensorRT: a plan that `engines.build` made, one execution context per camera.

Every load runs the golden input of the INT8 model's manifest, if it has one, before the first frame: a plan that does
not say what the model said is refused, whoever built it and wherever.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from perception.config import EngineConfig
from perception.cuda import DeviceMemory, Gpu, Stream
from perception.detect.gpu_engine import DeviceTensor, EngineContext, black_outputs, outputs_of
from perception.detect.manifest import MOST_DEVIATION, Golden, read_manifest
from perception.detect.model import Model, check_file
from perception.detect.plan_manifest import (
    Hardware,
    Place,
    PlanManifest,
    TensorInfo,
    mismatch,
    plan_path,
    read_plan_manifest,
)
from perception.detect.tensorrt_library import Library, load_library
from perception.errors import GpuError, ModelError
from perception.hashing import sha256

_FAILURES: Final = ("ERROR", "INTERNAL_ERROR")
_KEPT: Final = 8


def load(model: Path, config: EngineConfig, gpu: Gpu, *, input_size: tuple[int, int] | None = None) -> TensorRtEngine:
    """Load the plan of an ONNX detector from ``engine.directory``; `input_size` is ``detector.input_size``.

    Raises `BackendError` where TensorRT is missing, and `ModelError` where there is no plan, where it was built for
    another machine, library, model or config, and where it does not reproduce the golden outputs: each with the command
    that builds it.
    """
    check_file(model)
    library = load_library(config.flavor)
    digest = sha256(model)
    plan = plan_path(config, model, digest, input_size)
    remedy = f"run python -m engines.build {model} with the --config of this run, on this machine"
    manifest = read_plan_manifest(plan)
    if manifest is None:
        raise ModelError(f"{plan}: there is no plan of {model} yet; {remedy}")
    place = Place(digest, library.flavor, library.version, hardware(gpu), config.settings())
    reason = mismatch(manifest, plan, place)
    if reason is not None:
        raise ModelError(f"{plan}: {reason}; {remedy}")

    engine = open_plan(library, manifest, plan, model, gpu)
    described = read_manifest(model)
    if described is not None:
        check_golden(engine, described.golden, remedy)
    return engine


def hardware(gpu: Gpu) -> Hardware:
    """A GPU as manifests tell it."""
    return Hardware(name=gpu.name, compute_capability="{}.{}".format(*gpu.compute_capability))


def open_plan(library: Library, manifest: PlanManifest, plan: Path, model: Path, gpu: Gpu) -> TensorRtEngine:
    """Deserialise a plan of `model` whose manifest fits; raises `ModelError` where TensorRT does not take it."""
    trt, complaints = library.module, _Complaints()
    logger = library.logger(complaints)
    with gpu.current():
        runtime = trt.Runtime(logger)
        if manifest.settings.get("version_compatible"):
            runtime.engine_host_code_allowed = True  # such a plan carries the code that runs it
        core = manifest.settings.get("dla_core")
        if core is not None:
            runtime.DLA_core = core
        native = runtime.deserialize_cuda_engine(plan.read_bytes())
    if native is None:
        raise ModelError(f"{plan}: {library.title} does not take it ({complaints}); build it again with engines.build")
    return TensorRtEngine(runtime, native, manifest, complaints, model=model, gpu=gpu)


def check_golden(engine: TensorRtEngine, golden: Golden, remedy: str) -> float:
    """How far the engine is off for the golden input; raises `ModelError`, with the `remedy`, if that is too far."""
    deviation = golden.deviation(outputs_of(engine.gpu, engine, golden.image()))
    if deviation > MOST_DEVIATION:
        raise ModelError(
            f"{engine.model.path}: its engine is off by {deviation:.2g} standard deviations for the golden input, "
            f"{MOST_DEVIATION:g} are allowed; {remedy}"
        )
    return deviation


class _Complaints:
    """The last errors that TensorRT told its logger of, for as long as the engine lives; as text, the very last one."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=_KEPT)

    def __call__(self, severity: str, message: str) -> None:
        """Take down one message."""
        if severity in _FAILURES:
            self._kept.append(message)

    def __str__(self) -> str:
        lines = [line for message in self._kept for line in message.strip().splitlines()[:1]]
        return lines[-1] if lines else "it does not say why"


class TensorRtEngine:
    """A deserialised plan; satisfies `gpu_engine.GpuEngine`."""

    def __init__(
        self, runtime: Any, native: Any, manifest: PlanManifest, complaints: _Complaints, *, model: Path, gpu: Gpu
    ) -> None:
        self.gpu = gpu
        self.manifest = manifest
        # Neither of TensorRT for RTX nor of a DLA has that been tried.
        self.capturable = manifest.flavor == "tensorrt" and manifest.settings.get("dla_core") is None
        self.notes: tuple[str, ...] = (manifest.line(),)
        self._runtime = runtime  # the engine needs it for as long as it lives
        self._native = native
        self._complaints = complaints
        _, _, height, width = manifest.inputs[0].shape
        self.model = Model(model, (width, height), manifest.metadata, black_outputs(gpu, self))

    def context(self, stream: Stream) -> EngineContext:
        """Create an execution context whose inferences run on `stream`; the GPU's context is current."""
        return _Context(self._native, self.manifest, stream, self._complaints)

    def close(self) -> None:
        """Release the engine; its contexts are closed first."""
        with self.gpu.current():
            self._native = None
            self._runtime = None


class _Context:
    """An execution context with its tensors, which are bound once."""

    def __init__(self, native: Any, manifest: PlanManifest, stream: Stream, complaints: _Complaints) -> None:
        self._resources = ExitStack()
        self._complaints = complaints
        self._context = native.create_execution_context()
        if self._context is None:
            raise GpuError(f"TensorRT could not create an execution context ({complaints}); is there memory left?")
        try:
            self.input = self._bind(manifest.inputs[0], stream)
            self.outputs = tuple(self._bind(output, stream) for output in manifest.outputs)
        except BaseException:
            self._resources.close()
            raise
        self._execute = self._context.execute_async_v3
        self._stream = stream.handle

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        if not self._execute(self._stream):
            raise GpuError(f"TensorRT could not enqueue an inference ({self._complaints})")

    def close(self) -> None:
        """Release the context, then its memory."""
        self._execute = self._context = None
        self._resources.close()

    def _bind(self, tensor: TensorInfo, stream: Stream) -> DeviceTensor:
        """Allocate a tensor of the engine and tell the context where it is."""
        dtype = np.dtype(tensor.type)
        memory = self._resources.enter_context(DeviceMemory(stream.driver, _nbytes(tensor.shape, dtype)))
        if not self._context.set_tensor_address(tensor.name, memory.pointer):
            raise GpuError(f"TensorRT has no tensor {tensor.name}, which the plan's manifest tells of")
        return DeviceTensor(tensor.name, tensor.shape, dtype, memory.pointer)


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize
