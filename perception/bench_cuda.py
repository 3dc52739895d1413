"""The GPU path beside what it cannot go below: ``python -m perception.bench --device cuda``.

Six cameras of 1920x1080 in NV12, with pictures of the drive, through the channels that a run has, in blocks launched as
graphs and enqueued in turn. Stage times are the GPU's, from events; preprocessing begins with the host's copy of the
frame. Beside them, of the same run:

- *copies*: what host, bus and GPU copy in a second, each at its best. From that, what moving the bytes of
  preprocessing takes: the frame to pinned memory and to the GPU (neither where they share it), the rows that the
  letterbox looks at, and its output.
- the *bare engine*: nothing but inferences, one camera alone and all at once.
- the *host*: what the thread that ticks spends on submitting, and on the processor in all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perception import backends, cuda_backend
from perception.bench_floors import bare_engine, percentiles, preprocess_floor
from perception.clock import LiveClock, SteppedClock
from perception.config import Config
from perception.cuda import Gpu
from perception.cuda_backend import CaptureError, ChannelParts, GpuDevice
from perception.cuda_channel import STAGES, CudaChannel
from perception.detect.recognise import recognise
from perception.errors import BackendError, ConfigError
from perception.faults import Faults
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Camera, Frame, Image, Rig, Span, Transform
from perception.output.summary import machine

CAMERAS: Final = 6
SIZE: Final = (1920, 1080)
BLOCK_TICKS: Final = 100
PICTURES: Final = 24
"""So many of the drive's are shown over and over."""

FrameSets = Sequence[Sequence[Frame]]


def bench(chosen: Config, ticks: int, console: Console) -> dict[str, Any]:
    """Measure so many ticks of each kind; times in milliseconds. Raises a `PerceptionError` for what cannot be had."""
    backends.choose_device("cuda", chosen.detector.runtime)
    frame_sets, faults = _frame_sets(chosen), Faults()
    rig = {frame.camera: _camera(frame.camera) for frame in frame_sets[0]}
    runtime = cuda_backend.choose_runtime(chosen.detector.runtime)
    with ExitStack() as resources:
        device = resources.enter_context(GpuDevice(chosen))
        engine = cuda_backend.load_engine(chosen, device.gpu, runtime.runtime)
        resources.callback(engine.close)
        parts = ChannelParts(
            chosen, device, engine, recognise(engine.model, chosen.detector), "kernel", LiveClock(), faults
        )
        graphs, why = cuda_backend.launches_graphs(chosen, device.gpu, engine, "kernel")
        kinds = {"enqueued": _channels(parts, rig, frame_sets[0], resources, graphs=False)}
        if graphs:
            try:
                kinds["graph"] = _channels(parts, rig, frame_sets[0], resources, graphs=True)
            except CaptureError as refusal:
                why = cuda_backend.enqueued(str(refusal))
        free_before = _free_bytes(device.gpu)
        costs = {name: Costs() for name in kinds}
        for done in track(range(0, ticks, BLOCK_TICKS), "", console=console, transient=True):
            for name, channels in kinds.items():
                for tick in range(done, min(done + BLOCK_TICKS, ticks)):
                    costs[name].add(channels, frame_sets[tick % len(frame_sets)])
        bare = bare_engine(device.gpu, engine, len(rig), ticks)
        free_after = _free_bytes(device.gpu)
        if faults.lines():
            raise BackendError(f"nothing was measured: {faults.lines()[0]}")
        return {
            "machine": machine(),
            "gpu": list(device.notes),
            "runtime": [*engine.notes, why],
            "model": str(chosen.detector.model),
            "cameras": len(rig),
            "image": f"{SIZE[0]}x{SIZE[1]} NV12",
            "ticks": ticks,
            "kinds": {name: cost.result() for name, cost in costs.items()},
            "bare_engine": bare,
            "preprocess_floor": preprocess_floor(device.gpu, parts, next(iter(rig.values()))),
            "gpu_memory_change_bytes": free_before - free_after,
        }


def _camera(name: str) -> Camera:
    return Camera(name, *SIZE, np.eye(3), Transform(np.eye(3), np.zeros(3)))


def _frame_sets(chosen: Config) -> FrameSets:
    """Pictures of the drive as six cameras in NV12 would show them."""
    if chosen.replay is None:
        raise ConfigError("nothing to show: name a drive with --replay")
    drive = open_drive(chosen.replay, chosen.rig)
    with closing(Replay(drive, SteppedClock(), chosen.sync, threads=1)) as source:
        every = (frame.image for frames in source.frame_sets() for frame in frames.frames if frame.decoded)
        pictures = [to_nv12(np.asarray(cv2.resize(image, SIZE), np.uint8)) for image in islice(every, PICTURES)]
    if not pictures:
        raise ConfigError(f"{chosen.replay}: there is no picture in it; {'; '.join(drive.faults())}")
    return [
        [_frame(f"CAMERA_{i}", pictures[(CAMERAS * at + i) % len(pictures)]) for i in range(CAMERAS)]
        for at in range(-(-len(pictures) // CAMERAS))
    ]


def to_nv12(image: Image) -> Image:
    """An image (H, W, 3) in BGR, of even sides, as NV12: (H * 3 / 2, W)."""
    height, width = image.shape[:2]
    planar: Image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    planar[height:] = planar[height:].reshape(2, -1).T.reshape(height // 2, width)
    return planar


def _frame(camera: str, image: Image) -> Frame:
    return Frame(camera, image, capture_ns=0, arrival_ns=0, ingest=Span(0, 0))


def _channels(
    parts: ChannelParts, rig: Rig, frames: Sequence[Frame], resources: ExitStack, *, graphs: bool
) -> dict[str, CudaChannel]:
    """A channel per camera, warm, for `resources` to close; raises `CaptureError` with all of them closed."""
    channels = {}
    with ExitStack() as opened:
        for camera, frame in zip(rig.values(), frames, strict=True):
            channels[camera.name] = channel = parts.channel(camera)
            opened.callback(channel.close)
            for _ in range(2):
                channel.submit(frame)
                channel.collect()
            if graphs:
                cuda_backend.capture(channel, frame)
                channel.submit(frame)
                channel.collect()
        resources.enter_context(opened.pop_all())
    return channels


@dataclass
class Costs:
    """What ticks took, each with all cameras at once and then each camera by itself; nanoseconds."""

    tick: list[int] = field(default_factory=list)
    submit: list[int] = field(default_factory=list)
    processor: list[int] = field(default_factory=list)
    together: dict[str, list[int]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    alone: dict[str, list[int]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def add(self, channels: Mapping[str, CudaChannel], frames: Sequence[Frame]) -> None:
        """One tick with all cameras, as a run has it; and one camera while the others have nothing to do."""
        processor, started = time.thread_time_ns(), time.monotonic_ns()
        for frame in frames:
            channels[frame.camera].submit(frame)
        submitted = time.monotonic_ns()
        results = [channels[frame.camera].collect() for frame in frames]
        self.tick.append(time.monotonic_ns() - started)
        self.processor.append(time.thread_time_ns() - processor)
        self.submit.append(submitted - started)
        channels[frames[0].camera].submit(frames[0])
        for kept, of in ((self.together, results), (self.alone, [channels[frames[0].camera].collect()])):
            for span in (span for result in of if result is not None for span in result[1]):
                kept[span.stage].append(span.end_ns - span.start_ns)

    def result(self) -> dict[str, Any]:
        """All of it in milliseconds."""
        return {
            "tick": percentiles(self.tick),
            "host_submit": percentiles(self.submit),
            "host_processor": percentiles(self.processor),
            "together": {stage: percentiles(spent) for stage, spent in self.together.items()},
            "alone": {stage: percentiles(spent) for stage, spent in self.alone.items()},
        }


def _free_bytes(gpu: Gpu) -> int:
    with gpu.current():
        return gpu.free_bytes()


def print_result(console: Console, result: Mapping[str, Any]) -> None:
    """Print what was measured as a table, and what it was measured on."""
    console.print(f"\n{result['ticks']} ticks of {result['cameras']} cameras, {result['image']}; ms")
    for line in (*result["gpu"], *result["runtime"]):
        console.print(f"  {line}", soft_wrap=True, highlight=False)
    for name, cost in result["kinds"].items():
        console.print(_table(name, cost, result))
    floor = result["preprocess_floor"]
    console.print(
        f"floor of preprocess: host {floor['host_ms']:.3f} at {floor['host_copy_gb_per_s']:.1f} GB/s, "
        f"upload {floor['upload_ms']:.3f} at {floor['upload_gb_per_s']:.1f} GB/s, "
        f"GPU {floor['gpu_ms']:.3f} at {floor['gpu_copy_gb_per_s']:.0f} GB/s; of detect and tick: the bare engine",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"GPU memory taken while measuring: {result['gpu_memory_change_bytes']} bytes", highlight=False)


def _table(kind: str, cost: Mapping[str, Any], result: Mapping[str, Any]) -> Table:
    bare = result["bare_engine"]
    alone = {"preprocess": result["preprocess_floor"]["ms"], "detect": bare["alone"]["p50"]}
    rows = [
        ("tick, to all results on the host", cost["tick"], bare["together"]["p50"]),
        *((f"  {stage}, all cameras at once", cost["together"][stage], None) for stage in STAGES),
        *((f"  {stage}, one camera alone", cost["alone"][stage], alone.get(stage)) for stage in STAGES),
        ("  host, to submit", cost["host_submit"], None),
        ("  host, processor time", cost["host_processor"], None),
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column({"graph": "a graph per camera"}.get(kind, kind))
    for heading in ("p50", "p99", "p99.9", "floor"):
        table.add_column(heading, justify="right", min_width=7)
    for title, figures, least_ms in rows:
        shown = [f"{value:.3f}" for value in (*figures.values(), *([] if least_ms is None else [least_ms]))]
        table.add_row(title, *shown)
    return table
