from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from perception.channel import WorkerChannel
from perception.clock import SteppedClock
from perception.faults import Faults
from perception.messages import Candidates, Float32, Frame, Image, Span
from perception.workers import Task, Workers


class Request:
    """A detector that finds one box, or fails, or stalls until it is told to go on."""

    def __init__(self) -> None:
        self.input = np.zeros((3, 4, 4), np.float32)
        self.fails: BaseException | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()
        self.cancelled = 0

    def submit(self) -> None:
        self.begun.set()

    def collect(self) -> tuple[Float32, ...]:
        self.go_on.wait()
        if self.fails:
            raise self.fails
        return (np.array([[0, 0, self.input.max(), 4]], np.float32),)

    def cancel(self) -> None:
        self.cancelled += 1


def preprocess(image: Image, out: Float32) -> None:
    out[:] = image.max()


def as_they_are(candidates: Candidates) -> Candidates:
    return candidates


@pytest.fixture
def request_() -> Request:
    return Request()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def channel(request_: Request, faults: Faults) -> Iterator[WorkerChannel]:
    workers = Workers(1)
    channel = WorkerChannel(
        "A",
        preprocess=preprocess,
        request=request_,
        head=lambda outputs: Candidates(outputs[0], np.ones(1, np.float32), np.zeros(1, np.int32)),
        nms=as_they_are,
        to_image=as_they_are,
        workers=workers,
        clock=SteppedClock(),
        faults=faults,
        hang_s=0.01,
    )
    yield channel
    request_.go_on.set()
    channel.close()
    workers.close()


def frame(grey: int) -> Frame:
    return Frame("A", np.full((4, 4, 3), grey, np.uint8), capture_ns=grey, arrival_ns=0, ingest=Span(0, 0))


def found(channel: WorkerChannel) -> float:
    """What is collected of the frame submitted last: its grey level."""
    collected = channel.collect()
    assert collected is not None
    return float(collected[0].boxes[0, 2])


def cut_off(channel: WorkerChannel, request: Request) -> None:
    request.go_on.clear()
    request.begun.clear()
    channel.submit(frame(1))
    assert request.begun.wait(10)
    assert channel.collect(time.monotonic_ns() + 1_000_000) is None


def drained(channel: WorkerChannel, request: Request) -> bool:
    request.go_on.set()
    until = time.monotonic() + 10
    while not channel.ready() and time.monotonic() < until:
        time.sleep(0.001)
    return channel.ready()


def test_a_frame_goes_through_all_stages_in_order(channel: WorkerChannel) -> None:
    assert channel.ready()
    channel.submit(frame(3))
    collected = channel.collect()
    assert collected is not None
    detections, spans = collected
    assert detections.boxes[0, 2] == 3
    assert (detections.camera, detections.capture_ns) == ("A", 3)
    assert [span.stage for span in spans] == ["preprocess", "detect", "nms"]
    edges = [at for span in spans for at in (span.start_ns, span.end_ns)]
    assert edges == sorted(edges)


def test_a_second_frame_before_collecting_would_overwrite_the_input(channel: WorkerChannel) -> None:
    channel.submit(frame(1))
    with pytest.raises(RuntimeError, match="A: a frame was submitted before"):
        channel.submit(frame(2))
    assert found(channel) == 1
    with pytest.raises(RuntimeError, match="A: nothing was submitted"):
        channel.collect()


def test_what_is_in_before_the_cut_off_counts(channel: WorkerChannel, request_: Request) -> None:
    channel.submit(frame(1))
    assert channel.collect(time.monotonic_ns() + 10_000_000_000) is not None
    assert request_.cancelled == 0


def test_a_frame_that_is_cut_off_is_discarded_and_the_channel_drains(channel: WorkerChannel, request_: Request) -> None:
    cut_off(channel, request_)
    assert request_.cancelled == 1
    assert not channel.ready()
    with pytest.raises(RuntimeError, match="cut off"):
        channel.submit(frame(2))
    assert drained(channel, request_)
    channel.submit(frame(3))
    assert found(channel) == 3


def test_a_frame_that_no_worker_had_time_for_is_never_begun(channel: WorkerChannel, request_: Request) -> None:
    workers = channel._task._workers
    blocker = threading.Event()
    other: Task[int, bool] = Task(workers, lambda _: blocker.wait())
    other.start(0)
    request_.begun.clear()
    channel.submit(frame(1))
    assert channel.collect(0) is None
    assert channel.ready()
    blocker.set()
    assert other.wait(10)
    assert not request_.begun.is_set()


def test_a_runtime_that_raises_because_it_was_cancelled_is_no_fault(
    channel: WorkerChannel, request_: Request, faults: Faults
) -> None:
    request_.fails = RuntimeError("cancelled")
    cut_off(channel, request_)
    assert drained(channel, request_)
    assert faults.lines() == []


@pytest.mark.parametrize("error", [RuntimeError("the runtime\nfailed"), SystemExit("gone")])
def test_a_stage_that_raises_costs_one_frame_and_is_told(
    channel: WorkerChannel, request_: Request, faults: Faults, error: BaseException
) -> None:
    request_.fails = error
    for grey in (1, 2):
        channel.submit(frame(grey))
        assert channel.collect() is None
    request_.fails = None
    channel.submit(frame(3))
    assert found(channel) == 3
    (line,) = faults.lines()
    problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert line == f"A: frame captured at 1 ns: detect failed: {problem} (and 1 more like it)"


def test_a_stage_that_hangs_is_told_once(channel: WorkerChannel, request_: Request, faults: Faults) -> None:
    cut_off(channel, request_)
    time.sleep(0.02)
    assert not channel.ready()
    assert not channel.ready()
    assert faults.lines() == ["A: detect has not returned for 0.01 s; the camera is left out until it does"]
    assert drained(channel, request_)


def test_closing_does_not_wait_for_a_stage_that_hangs(channel: WorkerChannel, request_: Request) -> None:
    request_.go_on.clear()
    channel.submit(frame(1))
    channel.close()
    assert not request_.go_on.is_set()
