"""The one place that chooses: which device, which runtime, which implementation of each stage, and why.

Everything heavy is imported when it is chosen, so that no machine needs what it does not use.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from perception.clock import Clock
from perception.config import Config, DetectorConfig
from perception.cuda.nvidia import present_gpu
from perception.errors import BackendError, ConfigError
from perception.faults import Faults
from perception.messages import Camera, Frame, InputSpec, Needed, Rig, Span
from perception.stages import Channel

if TYPE_CHECKING:
    from perception.detect.model import Detector
    from perception.preprocess.dali import DaliPreprocessor
    from perception.preprocess.opencv import OpenCvPreprocessor
    from perception.workers import Workers


class Device(NamedTuple):
    """The device that the channels run on, and why it was chosen."""

    name: Literal["cpu", "cuda"]
    reason: str


class Preprocessing(NamedTuple):
    """The implementation of preprocessing, and why it was chosen."""

    name: Literal["opencv", "dali", "kernel"]
    reason: str


@dataclass(frozen=True)
class Backend:
    """The channels of a rig on each level of the ladder, warm and ready; `notes` says once what was chosen.

    Levels with the same detector share their channels. `needed` is what they make of each camera's images: ingest does
    no more than that. `faults` tells what went wrong in the channels so far, a line each.
    """

    channels: Sequence[Mapping[str, Channel]]
    needed: Mapping[str, Needed]
    threads: int
    notes: tuple[str, ...]
    faults: Callable[[], list[str]]
    close: Callable[[], None]


def choose_device(wanted: Literal["auto", "cpu", "cuda"], runtime: str = "auto") -> Device:
    """Settle on a device, for a ``detector.runtime``.

    Raises `BackendError` when it is asked for by name and cannot be had.
    """
    if wanted == "cpu":
        return Device("cpu", "as configured")
    missing = _why_no_cuda(runtime)
    if missing is None:
        return Device("cuda", "as configured" if wanted == "cuda" else f"there is a GPU, {present_gpu()}")
    if wanted == "cuda":
        raise BackendError(f"device: cuda was asked for, but {missing}; use --device auto or --device cpu")
    return Device("cpu", missing)


def _why_no_cuda(runtime: str) -> str | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver here (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver here has no usable GPU"
    from perception import cuda_backend

    try:
        cuda_backend.choose_runtime(runtime)
    except BackendError as error:
        return str(error)
    return None


_DALI_MISSING: Final = "DALI is not installed (pip install nvidia-dali-cuda130)"
_ORIN: Final = (8, 7)


def choose_preprocess(
    wanted: Literal["auto", "opencv", "dali", "kernel"],
    device: Literal["cpu", "cuda"],
    compute_capability: tuple[int, int] | None = None,
) -> Preprocessing:
    """Settle on an implementation; raises `BackendError` when it is asked for by name and cannot be had.

    `compute_capability` is the GPU's, where the device is one.
    """
    if wanted == ("kernel" if device == "cpu" else "opencv"):
        raise BackendError(f"preprocess: {wanted} does not run on device: {device}; use preprocess: auto")
    if wanted == "dali" and not _has_dali():
        raise BackendError(f"preprocess: dali was asked for, but {_DALI_MISSING}")
    # NVIDIA's wheels hold sm_75, 80, 90, 100, 110 and 120 and no older PTX (2.4.0, by cuobjdump); code for desktop GPUs
    # does not run on a Jetson. So on Orin, a DALI built from source has to be asked for by name.
    if wanted != "auto":
        return Preprocessing(wanted, "as configured")
    if device == "cpu":
        return Preprocessing("opencv", "the fastest on the CPU")
    if compute_capability == _ORIN:
        return Preprocessing("kernel", "DALI's wheels hold no code for Orin's sm_87")
    if not _has_dali():
        return Preprocessing("kernel", _DALI_MISSING)
    return Preprocessing("dali", "it is installed, and has code for this GPU")


def _has_dali() -> bool:
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def build(config: Config, rig: Rig, clock: Clock, detectors: Sequence[DetectorConfig] = ()) -> Backend:
    """Load the detectors, make a channel of each for every camera, and run all once so that no tick pays for it.

    `detectors` are those of the ladder's levels; without them there is one level, with the configured one. Raises
    `ModelError`, `ConfigError` or `BackendError` with one line for what cannot be had.
    """
    import cv2

    from perception.workers import Workers

    cv2.setNumThreads(1)  # the parallelism is across cameras
    threads = config.threads or len(os.sched_getaffinity(0))
    faults = Faults()
    with ExitStack() as resources:
        if choose_device(config.device, config.detector.runtime).name == "cuda":
            make_set = _sets_on_gpu(config, rig, clock, faults, resources)
        else:
            # One worker to spare: a camera that stalls in the middle of a tick does not take a share of the others'.
            workers = Workers(min(threads, len(rig)) + 1, "channel", spare=len(rig))
            resources.callback(workers.close)
            make_set = partial(_channel_set, rig=rig, clock=clock, threads=threads, workers=workers, faults=faults)
        sets: list[_ChannelSet] = []
        levels: list[int] = []
        loaded: list[DetectorConfig] = []
        for detector in detectors or (config.detector,):
            if detector not in loaded:
                variant = config.model_copy(update={"detector": detector})
                sets.append(make_set(variant))
                resources.callback(sets[-1].close)
                loaded.append(detector)
            levels.append(loaded.index(detector))
        return Backend(
            channels=[sets[index].channels for index in levels],
            # what they take as it comes is the same for all: they share the preprocessing
            needed={name: max(of.needed[name] for of in sets) for name in rig},
            threads=threads,
            notes=(*sets[0].notes, *(f"on the ladder: {note}" for of in sets[1:] for note in of.notes)),
            faults=faults.lines,
            close=resources.pop_all().close,
        )


class _ChannelSet(NamedTuple):
    """One detector, with a channel for each camera."""

    channels: Mapping[str, Channel]
    needed: Mapping[str, Needed]
    notes: tuple[str, ...]
    close: Callable[[], None]


def _sets_on_gpu(
    config: Config, rig: Rig, clock: Clock, faults: Faults, resources: ExitStack
) -> Callable[[Config], _ChannelSet]:
    """What makes a detector's channels on the GPU, which is opened here, once for all of them."""
    from perception import cuda_backend

    device = resources.enter_context(cuda_backend.GpuDevice(config))
    preprocessing = choose_preprocess(config.preprocess, "cuda", device.gpu.compute_capability)
    chosen = f"preprocessing: {preprocessing.name}, {preprocessing.reason}"

    def make(variant: Config) -> _ChannelSet:
        made = cuda_backend.build(
            variant,
            rig,
            clock,
            device=device,
            runtime=cuda_backend.choose_runtime(variant.detector.runtime),
            preprocess="dali" if preprocessing.name == "dali" else "kernel",
            faults=faults,
        )
        return _ChannelSet(made.channels, made.needed, (*device.notes, chosen, *made.notes), made.close)

    return make


def _channel_set(
    config: Config, rig: Rig, clock: Clock, *, threads: int, workers: Workers, faults: Faults
) -> _ChannelSet:
    from perception.channel import WorkerChannel
    from perception.detect import recognise
    from perception.detect.manifest import read_manifest
    from perception.nms.numpy import NumpyNms

    detector = load_detector(config, threads, len(rig))
    head, input_spec, head_notes = recognise.recognise(detector.model, config.detector)
    nms = NumpyNms(config.nms)
    preprocessing = choose_preprocess(config.preprocess, "cpu")

    channels: dict[str, Channel] = {}
    needed: dict[str, Needed] = {}
    for camera in rig.values():
        preprocess = _preprocessor(preprocessing.name, camera, input_spec)
        needed[camera.name] = Needed(preprocess.letterbox.resized_size)
        channels[camera.name] = WorkerChannel(
            camera.name,
            preprocess=preprocess,
            request=detector.request(),
            head=head,
            nms=nms,
            to_image=preprocess.letterbox.candidates_to_image,
            workers=workers,
            clock=clock,
            faults=faults,
            hang_s=config.enforcement.hang_s,
        )

    def close() -> None:
        for channel in channels.values():
            channel.close()
        detector.close()

    _warm_up(channels, rig, faults)
    described = read_manifest(detector.model.path)
    provenance = () if described is None else (described.line(),)
    chosen = f"preprocessing: {preprocessing.name}, {preprocessing.reason}"
    return _ChannelSet(channels, needed, (*detector.notes, *head_notes, chosen, *provenance), close)


def _preprocessor(name: str, camera: Camera, spec: InputSpec) -> OpenCvPreprocessor | DaliPreprocessor:
    if name == "dali":
        from perception.preprocess.dali import DaliPreprocessor as Chosen
    else:
        from perception.preprocess.opencv import OpenCvPreprocessor as Chosen  # type: ignore[assignment]
    return Chosen((camera.width, camera.height), spec)


def load_detector(config: Config, threads: int, cameras: int) -> Detector:
    """Load the configured model into the configured runtime; raises `ConfigError` or `ModelError`."""
    if config.detector.model is None:
        raise ConfigError("no detector: name an ONNX model with --model FILE.onnx or detector.model in the config")
    if config.detector.runtime == "tensorrt":
        raise ConfigError(
            "detector.runtime: tensorrt needs a GPU, and this runs on the CPU; use detector.runtime: auto"
        )
    if config.detector.runtime == "onnxruntime":
        from perception.detect import onnxruntime as runtime
    else:
        from perception.detect import openvino as runtime  # type: ignore[no-redef]
    size = config.detector.input_size
    return runtime.load(config.detector.model, threads=threads, cameras=cameras, input_size=size)


def _warm_up(channels: Mapping[str, Channel], rig: Rig, faults: Faults, rounds: int = 2) -> None:
    """Run black frames through every channel: the first inference allocates, the second is as fast as the rest."""
    for _ in range(rounds):
        for name, camera in rig.items():
            channels[name].submit(_black(camera))
        if None in [channel.collect() for channel in channels.values()]:
            raise BackendError(f"the detector fails on a black image: {faults.lines()[0]}")


def _black(camera: Camera) -> Frame:
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    return Frame(camera.name, image, capture_ns=0, arrival_ns=0, ingest=Span(0, 0))
