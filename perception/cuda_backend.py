"""The channels on the GPU: chosen, built and warmed up. `backends.py` comes here when the device is cuda."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple

from perception.clock import Clock
from perception.config import Config
from perception.cuda import Gpu, Stream, Workspace
from perception.cuda.compaction import KernelsByName
from perception.cuda.cubins import KernelLibrary
from perception.cuda.nvidia import bindings_for, present_gpu
from perception.cuda.resource import Resource
from perception.cuda_channel import CudaChannel
from perception.detect.cuda_heads import decode
from perception.detect.gpu_engine import EngineContext, GpuEngine
from perception.detect.manifest import read_manifest
from perception.detect.recognise import Recognised, recognise
from perception.detect.tensorrt_library import MODULES, WITHOUT_RTX, Flavor
from perception.errors import BackendError, ConfigError, GpuError
from perception.faults import Faults
from perception.messages import REDUCTIONS, Camera, Frame, Needed, Rig, Span
from perception.nms.cuda import ResultBlock, suppress
from perception.pixels import blank
from perception.preprocess import dali, kernel
from perception.preprocess.kernel import KernelPreprocessor
from perception.preprocess.letterbox import Letterbox

if TYPE_CHECKING:
    from perception.preprocess.gpu_preprocessor import GpuPreprocessor

Runtime = Literal["tensorrt", "onnxruntime"]
PreprocessName = Literal["kernel", "dali"]
_WITH_CUDA = "pip install onnxruntime-gpu in its place"
_TAKEN = {
    "kernel": "NV12 and YUYV go to the GPU as cameras give them; all else is decoded on the CPU",
    "dali": "JPEGs are decoded on the GPU, but for those that it refuses; all else on the CPU",
}


class Chosen(NamedTuple):
    """The runtime for detectors on the GPU, and why."""

    runtime: Runtime
    reason: str


def choose_runtime(wanted: str) -> Chosen:
    """Settle on ``detector.runtime`` for the GPU; raises `BackendError` with what is missing for it."""
    if find_spec("pycuda") is None:
        raise BackendError("PyCUDA is not installed (pip install -e '.[gpu]')")
    if wanted == "openvino":
        raise BackendError("detector.runtime: openvino runs on the CPU")
    installed = [flavor for flavor, names in MODULES.items() if any(find_spec(name) is not None for name in names)]
    if wanted == "tensorrt":
        if not installed:
            raise BackendError("TensorRT is not installed")
        return Chosen("tensorrt", "as configured")
    if wanted == "onnxruntime":
        if not _onnxruntime_has_cuda():
            raise BackendError(f"ONNX Runtime is here without CUDA ({_WITH_CUDA})")
        return Chosen("onnxruntime", "as configured")
    missing = _why_no_tensorrt(installed)
    if missing is None:
        return Chosen("tensorrt", "it is installed")
    if not _onnxruntime_has_cuda():
        raise BackendError(f"{missing}, and ONNX Runtime is here without CUDA ({_WITH_CUDA})")
    return Chosen("onnxruntime", missing)


def _why_no_tensorrt(installed: Sequence[Flavor]) -> str | None:
    if "tensorrt" in installed:
        return None
    if "rtx" not in installed:
        return "TensorRT is not installed"
    gpu = present_gpu()
    if gpu is not None and gpu.compute_capability in WITHOUT_RTX:
        return f"TensorRT for RTX has no code for {gpu}"
    return None


def _onnxruntime_has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class GpuDevice(Resource):
    """The GPU with its kernels, which the channels of all detectors share."""

    def __init__(self, config: Config) -> None:
        with ExitStack() as resources:
            self.gpu = resources.enter_context(Gpu())
            with self.gpu.current():
                library = KernelLibrary(self.gpu, config.gpu.kernels)
            resources.callback(self._close_library, library)
            self.kernels: KernelsByName = library.kernels
            self.notes = (*self.gpu.notes, *library.notes)
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Unload the kernels and let go of the GPU; all channels are closed before."""
        self._resources.close()

    def _close_library(self, library: KernelLibrary) -> None:
        with self.gpu.current():
            library.close()


@dataclass(frozen=True)
class GpuChannels:
    """One detector, with a channel for each camera; `needed` is as `backends.Backend` has it."""

    channels: Mapping[str, CudaChannel]
    needed: Mapping[str, Needed]
    notes: tuple[str, ...]
    close: Callable[[], None]


def build(
    config: Config,
    rig: Rig,
    clock: Clock,
    *,
    device: GpuDevice,
    runtime: Chosen,
    preprocess: PreprocessName,
    faults: Faults,
) -> GpuChannels:
    """Load the configured detector, make a channel of it for every camera, and run all until they are warm.

    Where all of its stages can be captured, each channel's work becomes a graph per size of its images; where one
    refuses it, all is enqueued, and a note says why. Raises `ModelError`, `ConfigError`, `BackendError` or `GpuError`
    with one line for what cannot be had.
    """
    _check_priorities(config, rig)
    with ExitStack() as resources:
        engine = load_engine(config, device.gpu, runtime.runtime)
        resources.callback(engine.close)
        recognised = recognise(engine.model, config.detector)
        parts = ChannelParts(config, device, engine, recognised, preprocess, clock, faults)
        needed = {camera.name: parts.needed(camera) for camera in rig.values()}
        graphs, why = launches_graphs(config, device.gpu, engine, preprocess)
        try:
            channels = resources.enter_context(_warm_channels(parts, rig, needed, graphs=graphs))
        except CaptureError as refusal:  # of all cameras or of none: so these are made anew
            why = enqueued(str(refusal))
            channels = resources.enter_context(_warm_channels(parts, rig, needed, graphs=False))
        described = read_manifest(engine.model.path)
        notes = (
            f"runtime: {runtime.runtime}, {runtime.reason}",
            *engine.notes,
            *recognised.notes,
            f"images: {_TAKEN[preprocess]}",
            why,
            *(() if described is None else (described.line(),)),
        )
        return GpuChannels(channels, needed, notes, resources.pop_all().close)


def load_engine(config: Config, gpu: Gpu, runtime: Runtime) -> GpuEngine:
    """Load the configured model into a runtime; raises `ConfigError`, `ModelError` or `BackendError`."""
    model, size = config.detector.model, config.detector.input_size
    if model is None:
        raise ConfigError("no detector: name an ONNX model with --model FILE.onnx or detector.model in the config")
    if runtime == "tensorrt":
        from perception.detect import tensorrt

        return tensorrt.load(model, config.engine, gpu, input_size=size)
    from perception.detect import ort_cuda

    return ort_cuda.load(model, gpu, input_size=size)


@dataclass(frozen=True)
class ChannelParts:
    """What the channels of one detector have in common."""

    config: Config
    device: GpuDevice
    engine: GpuEngine
    recognised: Recognised
    preprocess: PreprocessName
    clock: Clock
    faults: Faults

    def channel(self, camera: Camera) -> CudaChannel:
        """Make a camera's channel, on a stream of its own."""
        gpu, known, nms = self.device.gpu, self.device.kernels, self.config.nms
        with gpu.current(), ExitStack() as resources:
            stream = resources.enter_context(gpu.stream(self.config.gpu.priorities.get(camera.name)))
            context = self.engine.context(stream)
            resources.callback(context.close)
            prepare = self._preprocessor(camera, stream, context)
            resources.callback(prepare.close)
            decoding_memory = resources.enter_context(Workspace(gpu, stream))
            decoding = decode(self.recognised.head, context.outputs, known, decoding_memory)
            has_attributes = decoding.found.attributes is not None
            results = resources.enter_context(ResultBlock(gpu, nms.max_detections, has_attributes=has_attributes))
            nms_memory = resources.enter_context(Workspace(gpu, stream))
            suppression = suppress(decoding.found, results.list, nms, known, nms_memory)
            return CudaChannel(
                camera.name,
                gpu=gpu,
                stream=stream,
                preprocess=prepare,
                inference=context,
                decode=decoding.launches,
                suppress=suppression,
                results=results,
                to_image=prepare.letterbox.candidates_to_image,
                resources=resources.pop_all(),
                clock=self.clock,
                faults=self.faults,
                hang_s=self.config.enforcement.hang_s,
            )

    def needed(self, camera: Camera) -> Needed:
        """What its channel makes of the camera's images."""
        spec, size = self.recognised.input_spec, (camera.width, camera.height)
        fitted = Letterbox.fit(size, (spec.width, spec.height), spec.pad_position)
        return Needed(fitted.resized_size, dali.TAKES if self.preprocess == "dali" else kernel.takes(size))

    def _preprocessor(self, camera: Camera, stream: Stream, context: EngineContext) -> GpuPreprocessor:
        size, spec, target = (camera.width, camera.height), self.recognised.input_spec, context.input
        if self.preprocess == "dali":
            return dali.DaliGpuPreprocessor(
                size,
                spec,
                gpu=self.device.gpu.ordinal,
                stream=stream.handle,
                target=target.pointer,
                dtype=target.dtype,
            )
        gpu, known = self.device.gpu, self.device.kernels
        return KernelPreprocessor(gpu, stream, known, size, spec, target=target.pointer, dtype=target.dtype)


def _check_priorities(config: Config, rig: Rig) -> None:
    for name in config.gpu.priorities:
        if name not in rig:
            raise ConfigError(f"gpu.priorities: no camera {name!r} in this rig; known: {', '.join(rig)}")


def launches_graphs(config: Config, gpu: Gpu, engine: GpuEngine, preprocess: PreprocessName) -> tuple[bool, str]:
    """Whether work is captured into graphs, and why not."""
    reasons = {
        "as configured": not config.gpu.graphs,
        f"cuda-python is not installed (pip install {bindings_for(present_gpu())})": not gpu.has_graphs,
        "the runtime cannot be captured": not engine.capturable,
        "DALI cannot be captured": preprocess == "dali",
    }
    for reason, holds in reasons.items():
        if holds:
            return False, enqueued(reason)
    return True, "each camera's work is launched as one CUDA graph"


def enqueued(reason: str) -> str:
    """The note where there are no graphs."""
    return f"work is enqueued, not launched as a graph: {reason}"


class CaptureError(GpuError):
    """Work that cannot be captured, though its runtime can in general: enqueued it may still run."""


def capture(channel: CudaChannel, frame: Frame) -> None:
    """Make a graph of a channel's work on frames like this one; raises `CaptureError`."""
    try:
        channel.capture(frame)
    except GpuError as error:
        raise CaptureError(f"that of {frame.camera} cannot be captured: {error}") from None


@contextmanager
def _warm_channels(
    parts: ChannelParts, rig: Rig, needed: Mapping[str, Needed], *, graphs: bool
) -> Iterator[dict[str, CudaChannel]]:
    """A channel for each camera, warm; raises `CaptureError` with all of them closed."""
    with ExitStack() as opened:
        channels = {}
        for camera in rig.values():
            channels[camera.name] = channel = parts.channel(camera)
            opened.callback(channel.close)
        for camera in rig.values():
            _warm_up(channels[camera.name], camera, needed[camera.name], parts.faults, graphs=graphs)
        yield channels


def _warm_up(
    channel: CudaChannel, camera: Camera, needed: Needed, faults: Faults, *, graphs: bool, rounds: int = 2
) -> None:
    """Run blank frames of all kinds that ingest may give: the first inference allocates, the first launch uploads."""
    for frame in _blank(camera, needed):
        for _ in range(rounds):
            _run(channel, frame, faults)
        if graphs:
            capture(channel, frame)
            _run(channel, frame, faults)


def _run(channel: CudaChannel, frame: Frame, faults: Faults) -> None:
    channel.submit(frame)
    if channel.collect() is None:
        raise BackendError(f"a blank image fails: {faults.lines()[0]}")


def _blank(camera: Camera, needed: Needed) -> list[Frame]:
    """Blank frames of the camera's size, of the parts of it that a decoder gives where no more is needed, and raw."""
    size, formats = (camera.width, camera.height), sorted(needed.as_they_come)
    largest = needed.reduction(size)
    sizes = [(-(-camera.width // by), -(-camera.height // by)) for by in REDUCTIONS if by <= largest]
    images = [*(blank("bgr", of) for of in sizes), *(blank(form, size) for form in formats)]
    return [Frame(camera.name, image, 0, 0, Span(0, 0)) for image in images]
