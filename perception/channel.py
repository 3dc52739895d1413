"""One camera's path on worker threads: preprocess, detect, nms."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

from perception.clock import Clock
from perception.messages import Candidates, Detections, Frame, StageSpan
from perception.stages import Head, InferenceRequest, Nms, Preprocessor

ChannelResult = tuple[Detections, tuple[StageSpan, ...]]


class WorkerChannel:
    """Runs a camera's stages one after the other on a worker; the workers are shared by all cameras.

    It owns the camera's inference request and with it the input buffer, so it takes a frame only after the one
    before it was collected. `to_image` maps what was found from the model's input to the camera's image.
    """

    def __init__(
        self,
        camera: str,
        *,
        preprocess: Preprocessor,
        request: InferenceRequest,
        head: Head,
        nms: Nms,
        to_image: Callable[[Candidates], Candidates],
        workers: Executor,
        clock: Clock,
    ) -> None:
        self._camera = camera
        self._preprocess = preprocess
        self._request = request
        self._head = head
        self._nms = nms
        self._to_image = to_image
        self._workers = workers
        self._now_ns = clock.now_ns
        self._pending: Future[ChannelResult] | None = None

    def submit(self, frame: Frame) -> None:
        """Start on a frame; returns at once."""
        if self._pending is not None:
            raise RuntimeError(f"{self._camera}: a frame was submitted before the one before it was collected")
        self._pending = self._workers.submit(self._work, frame)

    def collect(self) -> ChannelResult:
        """Wait for the frame submitted last: its detections, and when each stage worked on it."""
        if self._pending is None:
            raise RuntimeError(f"{self._camera}: nothing was submitted")
        pending, self._pending = self._pending, None
        return pending.result()

    def close(self) -> None:
        """Wait for a frame still in flight, whatever becomes of it."""
        if self._pending is not None:
            self._pending.exception()
            self._pending = None

    def _work(self, frame: Frame) -> ChannelResult:
        started = self._now_ns()
        self._preprocess(frame.image, self._request.input)
        prepared = self._now_ns()
        self._request.submit()
        candidates = self._head(self._request.collect())
        detected = self._now_ns()
        found = self._to_image(self._nms(candidates))
        done = self._now_ns()
        detections = Detections(
            self._camera, frame.capture_ns, found.boxes, found.scores, found.labels, found.attributes
        )
        return detections, (
            StageSpan("preprocess", self._camera, started, prepared),
            StageSpan("detect", self._camera, prepared, detected),
            StageSpan("nms", self._camera, detected, done),
        )
