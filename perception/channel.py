"""One camera's path on worker threads: preprocess, detect, nms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from perception.clock import Clock, seconds_until
from perception.faults import Faults
from perception.messages import Candidates, Detections, Frame, StageSpan
from perception.stages import Head, InferenceRequest, Nms, Preprocessor
from perception.workers import Task, Workers

ChannelResult = tuple[Detections, tuple[StageSpan, ...]]
_LONGEST_PROBLEM: Final = 200


class WorkerChannel:
    """Runs a camera's stages one after the other on a worker; the workers are shared by all cameras.

    It owns the camera's inference request and with it the input buffer, so it takes a frame only after it is done with
    the one before it: collected, or cut off and drained. `to_image` maps what was found from the model's input to the
    camera's image. A stage that raises costs the camera one frame; that, and a stage that does not return for `hang_s`,
    goes into `faults`.
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
        workers: Workers,
        clock: Clock,
        faults: Faults,
        hang_s: float = 2.0,
    ) -> None:
        self._camera = camera
        self._preprocess = preprocess
        self._request = request
        self._head = head
        self._nms = nms
        self._to_image = to_image
        self._task: Task[Frame, ChannelResult | None] = Task(workers, self._work)
        self._now_ns = clock.now_ns
        self._faults = faults
        self._hang_s = hang_s
        self._capture_ns: int | None = None  # of the frame to be collected
        self._submitted_ns = 0
        self._hangs = False
        self._stage = "preprocess"

    def ready(self) -> bool:
        """Whether it can take a frame: not while one that was cut off is still being worked on."""
        if self._task.idle:
            self._hangs = False
            return True
        if not self._hangs and self._now_ns() - self._submitted_ns > self._hang_s * 1e9:
            self._hangs = True
            line = f"{self._camera}: {self._stage} has not returned for {self._hang_s:g} s"
            self._faults.add((self._camera, "hangs"), f"{line}; the camera is left out until it does")
        return False

    def submit(self, frame: Frame) -> None:
        """Start on a frame; returns at once."""
        if self._capture_ns is not None:
            raise RuntimeError(f"{self._camera}: a frame was submitted before the one before it was collected")
        if not self._task.idle:
            raise RuntimeError(f"{self._camera}: a frame was submitted while one that was cut off was worked on")
        self._capture_ns, self._submitted_ns = frame.capture_ns, self._now_ns()
        self._task.start(frame)

    def collect(self, until_ns: int | None = None) -> ChannelResult | None:
        """Wait for the frame submitted last, `until_ns` at most; None when it was cut off, or when a stage raised."""
        if self._capture_ns is None:
            raise RuntimeError(f"{self._camera}: nothing was submitted")
        capture_ns, self._capture_ns = self._capture_ns, None
        if not self._task.wait(seconds_until(until_ns, self._now_ns())):
            self._request.cancel()  # fusion comes next, and wants the processors
            return None
        if self._task.error is not None:
            self._note(self._task.error, capture_ns)
        return self._task.result

    def close(self) -> None:
        """Give up on a frame still in flight."""
        if self._capture_ns is not None:
            self.collect(0)

    def _note(self, error: BaseException, capture_ns: int) -> None:
        name, message = type(error).__name__, " ".join(str(error).split())[-_LONGEST_PROBLEM:]
        line = f"{self._camera}: frame captured at {capture_ns} ns: {self._stage} failed: {name}: {message}"
        self._faults.add((self._camera, self._stage, name), line)

    def _work(self, frame: Frame) -> ChannelResult | None:
        """On a worker: all stages, as long as somebody waits for them."""
        self._stage = "preprocess"
        started = self._now_ns()
        self._preprocess(frame.image, self._request.input)
        prepared = self._now_ns()
        if self._task.given_up():
            return None
        self._stage = "detect"
        self._request.submit()
        outputs = self._request.collect()
        if self._task.given_up():
            return None  # before it takes the interpreter from fusion, which goes on without it
        candidates = self._head(outputs)
        detected = self._now_ns()
        self._stage = "nms"
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
