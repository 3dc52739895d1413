"""What the GPU path cannot go below, measured: the bare engine, and plain copies of as many bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np

from perception.cuda import Event, Gpu, Stream
from perception.cuda_backend import ChannelParts
from perception.detect.gpu_engine import EngineContext, GpuEngine
from perception.messages import Camera

COPY_BYTES: Final = 256 << 20
_COPIES: Final = 20


def bare_engine(gpu: Gpu, engine: GpuEngine, cameras: int, times: int) -> dict[str, dict[str, float]]:
    """Milliseconds of an inference on the GPU by itself, and of one per camera at once, until the last is done."""
    with gpu.current(), ExitStack() as resources:
        bare = [_Bare(gpu, engine, resources) for _ in range(cameras)]
        for one in bare * 2:
            one.enqueue()
            one.wait()
        alone, together = [], []
        for _ in range(times):
            bare[0].enqueue()
            alone.append(round(bare[0].wait() * 1e6))
            started = time.monotonic_ns()
            for one in bare:
                one.enqueue()
            for one in bare:
                one.wait()
            together.append(time.monotonic_ns() - started)
        return {"alone": percentiles(alone), "together": percentiles(together)}


class _Bare:
    """A context of the engine between two events."""

    def __init__(self, gpu: Gpu, engine: GpuEngine, resources: ExitStack) -> None:
        self._stream: Stream = resources.enter_context(gpu.stream())
        self._context: EngineContext = engine.context(self._stream)
        resources.callback(self._context.close)
        self._start: Event = resources.enter_context(gpu.event())
        self._end: Event = resources.enter_context(gpu.event())

    def enqueue(self) -> None:
        self._stream.record(self._start)
        self._context.enqueue()
        self._stream.record(self._end)

    def wait(self) -> float:
        while not self._end.done():
            pass
        return self._end.ms_since(self._start)


def preprocess_floor(gpu: Gpu, parts: ChannelParts, camera: Camera) -> dict[str, float]:
    """What moving the bytes of one camera's preprocessing takes at the speed of plain copies; in milliseconds."""
    width, height = camera.width, camera.height
    frame_bytes, spec = width * height * 3 // 2, parts.recognised.input_spec
    _, resized_height = parts.needed(camera).size
    looked_at = frame_bytes * min(1.0, 2 * resized_height / height)  # two rows for each that comes out
    written = 3 * spec.width * spec.height * 4
    with gpu.current(), gpu.stream() as stream, ExitStack() as resources:
        pinned = resources.enter_context(gpu.host_memory(frame_bytes)).array
        image = np.ones(frame_bytes, np.uint8)
        host_ms = _best([_host_ms(lambda: np.copyto(pinned, image)) for _ in range(_COPIES)])
        # A large copy: a small one would stay in the GPU's cache.
        nbytes = min(COPY_BYTES, gpu.free_bytes() // 4)
        source, target = (resources.enter_context(gpu.memory(nbytes)).pointer for _ in range(2))
        copy_ms = _gpu_ms(gpu, stream, lambda: stream.copy(source, target, nbytes))
        upload_ms = 0.0 if gpu.zero_copy else _gpu_ms(gpu, stream, lambda: stream.upload(pinned, target))
    within_ms = (looked_at + written) / (2 * nbytes / copy_ms)
    return {
        "host_copy_gb_per_s": frame_bytes / host_ms / 1e6,
        "upload_gb_per_s": frame_bytes / upload_ms / 1e6 if upload_ms else 0.0,
        "gpu_copy_gb_per_s": 2 * nbytes / copy_ms / 1e6,
        "host_ms": host_ms,
        "upload_ms": upload_ms,
        "gpu_ms": within_ms,
        "ms": host_ms + upload_ms + within_ms,
    }


def _host_ms(work: Callable[[], None]) -> float:
    started = time.monotonic_ns()
    work()
    return (time.monotonic_ns() - started) / 1e6


def _gpu_ms(gpu: Gpu, stream: Stream, work: Callable[[], None]) -> float:
    with gpu.event() as start, gpu.event() as end:
        taken = []
        for _ in range(_COPIES):
            stream.record(start)
            work()
            stream.record(end)
            stream.synchronize()
            taken.append(end.ms_since(start))
    return _best(taken)


def _best(taken_ms: Sequence[float]) -> float:
    return max(min(taken_ms), 1e-6)


def percentiles(values_ns: Sequence[int]) -> dict[str, float]:
    """Of nanoseconds, in milliseconds."""
    at = np.percentile(np.array(values_ns) / 1e6, (50, 99, 99.9))
    return dict(zip(("p50", "p99", "p99.9"), at.tolist(), strict=True))
