"""One camera's path on the GPU: preprocess, detect, nms, all on one stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Final, Protocol

from perception.clock import Clock
from perception.cuda import Gpu, Graph, Launch, Stream
from perception.faults import Faults
from perception.messages import Candidates, Detections, Frame, StageSpan

ChannelResult = tuple[Detections, tuple[StageSpan, ...]]
STAGES: Final = ("preprocess", "detect", "nms")
_POLL_S: Final = 50e-6


class Preparing(Protocol):
    """What the channel asks of a `GpuPreprocessor`."""

    def stage(self, frame: Frame) -> Hashable:
        """Take a frame over; what the work to enqueue depends on."""

    def enqueue(self) -> None:
        """Put the work on the stream."""


class Inferring(Protocol):
    """What the channel asks of an `EngineContext`."""

    def enqueue(self) -> None:
        """Put an inference on the stream."""


class Results(Protocol):
    """Where what was found comes back to the host."""

    def to_host(self, stream: Stream) -> None:
        """Put the copy on the stream."""

    def read(self) -> Candidates:
        """What came back, copied."""


class CudaChannel:
    """Enqueues a camera's stages and looks, without waiting for it, whether the GPU is done with them.

    Between the frame's copy to the GPU and the results' copy back nothing goes by the host. The staging buffers and the
    results are one frame's at a time: it takes a frame only when the event behind the one before it is done. `decode`
    and `suppress` are what follows the inference, up to the results; `to_image` maps these to the camera's image.

    It owns the `resources`, closed last to first, the stream idle and the GPU's context current. A frame that cannot be
    staged costs the camera that frame and goes into `faults`, as does a GPU that is not done after `hang_s`. A failing
    driver raises `GpuError`: after one, the context is of no more use to anybody.
    """

    def __init__(
        self,
        camera: str,
        *,
        gpu: Gpu,
        stream: Stream,
        preprocess: Preparing,
        inference: Inferring,
        decode: Sequence[Launch],
        suppress: Sequence[Launch],
        results: Results,
        to_image: Callable[[Candidates], Candidates],
        resources: ExitStack,
        clock: Clock,
        faults: Faults,
        hang_s: float = 2.0,
    ) -> None:
        self._camera = camera
        self._gpu = gpu
        self._stream = stream
        self._preprocess = preprocess
        self._inference = inference
        self._decode = decode
        self._suppress = suppress
        self._results = results
        self._to_image = to_image
        self._resources = resources
        self._now_ns = clock.now_ns
        self._faults = faults
        self._hang_s = hang_s
        with gpu.current():
            self._marks = [resources.enter_context(gpu.event()) for _ in range(len(STAGES) + 1)]
            self._done = resources.enter_context(gpu.event())
        self._graphs: dict[Hashable, Graph] = {}
        self._capture_ns: int | None = None  # of the frame to be collected
        self._busy = False  # the GPU may be at work, on that one or on one that was cut off
        self._hangs = False
        self._started_ns = self._launched_ns = 0

    def ready(self) -> bool:
        """Whether it can take a frame: not while one that was cut off is still being worked on."""
        return self._capture_ns is None and self._drained()

    def submit(self, frame: Frame) -> None:
        """Copy the frame to where the GPU reads it and enqueue all stages; returns at once."""
        if self._capture_ns is not None:
            raise RuntimeError(f"{self._camera}: a frame was submitted before the one before it was collected")
        if not self._drained():
            raise RuntimeError(f"{self._camera}: a frame was submitted while one that was cut off was worked on")
        self._capture_ns, self._started_ns = frame.capture_ns, self._now_ns()
        try:
            variant = self._preprocess.stage(frame)
            with self._gpu.current():
                self._busy = True
                self._launched_ns = self._now_ns()
                graph = self._graphs.get(variant)
                if graph is None:
                    self._enqueue()
                else:
                    graph.launch()
                # Not part of the graph: that leaves a mark from the launch before as done until it gets there.
                self._stream.record(self._done)
        except ValueError as error:
            self._busy = False  # there is no more than a mark on the stream
            line = f"{self._camera}: frame captured at {frame.capture_ns} ns: preprocess failed: {error}"
            self._faults.add((self._camera, "preprocess"), line)

    def collect(self, until_ns: int | None = None) -> ChannelResult | None:
        """Wait for the frame submitted last, `until_ns` at most; None when it was cut off, or could not be staged."""
        if self._capture_ns is None:
            raise RuntimeError(f"{self._camera}: nothing was submitted")
        capture_ns, self._capture_ns = self._capture_ns, None
        if not self._busy:
            return None
        with self._gpu.current():
            while not self._done.done():
                if until_ns is not None and self._now_ns() >= until_ns:
                    return None
                time.sleep(_POLL_S)
            self._busy = False
            spans = self._spans()
        found = self._to_image(self._results.read())
        detections = Detections(self._camera, capture_ns, found.boxes, found.scores, found.labels, found.attributes)
        return detections, spans

    def capture(self, frame: Frame) -> None:
        """Capture the work on frames like this one into a graph, to be launched for them from now on.

        For stages that are capturable, with cuda-python, after such a frame went through twice.
        """
        if not self.ready():
            raise RuntimeError(f"{self._camera}: captured while a frame was worked on")
        variant = self._preprocess.stage(frame)
        with self._gpu.current():
            self._graphs[variant] = self._resources.enter_context(self._stream.capture(self._enqueue))

    def close(self) -> None:
        """Wait for the GPU to be done with this camera, and release all that the channel holds."""
        with self._gpu.current():
            try:
                self._stream.synchronize()
            finally:
                self._resources.close()

    def _enqueue(self) -> None:
        preprocessing, detecting, suppressing, end = self._marks
        stream = self._stream
        stream.record(preprocessing)
        self._preprocess.enqueue()
        stream.record(detecting)
        self._inference.enqueue()
        for launch in self._decode:
            launch.enqueue(stream)
        stream.record(suppressing)
        for launch in self._suppress:
            launch.enqueue(stream)
        self._results.to_host(stream)
        stream.record(end)

    def _drained(self) -> bool:
        if not self._busy:
            return True
        with self._gpu.current():
            self._busy = not self._done.done()
        if not self._busy:
            self._hangs = False
        elif not self._hangs and self._now_ns() - self._started_ns > self._hang_s * 1e9:
            self._hangs = True
            line = f"{self._camera}: the GPU is not done after {self._hang_s:g} s"
            self._faults.add((self._camera, "hangs"), f"{line}; the camera is left out until it is")
        return not self._busy

    def _spans(self) -> tuple[StageSpan, ...]:
        """When the stages were at work: the GPU's times from mark to mark, put behind the host's time of the launch.

        Preprocessing begins with the copy on the host.
        """
        start, *ends = self._marks
        ends_ns = [self._launched_ns + round(end.ms_since(start) * 1e6) for end in ends]
        starts_ns = [self._started_ns, *ends_ns]
        return tuple(
            StageSpan(stage, self._camera, start_ns, end_ns)
            for stage, start_ns, end_ns in zip(STAGES, starts_ns, ends_ns, strict=False)
        )
