from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from perception.channel import WorkerChannel
from perception.clock import SteppedClock
from perception.messages import Candidates, Float32, Frame, Image, Span


class Request:
    """A detector that finds one box, or fails."""

    def __init__(self) -> None:
        self.input = np.zeros((3, 4, 4), np.float32)
        self.fails = False

    def submit(self) -> None:
        pass

    def collect(self) -> tuple[Float32, ...]:
        if self.fails:
            raise RuntimeError("the runtime failed")
        return (np.array([[0, 0, self.input.max(), 4]], np.float32),)


def preprocess(image: Image, out: Float32) -> None:
    out[:] = image.max()


def as_they_are(candidates: Candidates) -> Candidates:
    return candidates


@pytest.fixture
def request_() -> Request:
    return Request()


@pytest.fixture
def channel(request_: Request) -> Iterator[WorkerChannel]:
    with ThreadPoolExecutor(1) as workers:
        channel = WorkerChannel(
            "A",
            preprocess=preprocess,
            request=request_,
            head=lambda outputs: Candidates(outputs[0], np.ones(1, np.float32), np.zeros(1, np.int32)),
            nms=as_they_are,
            to_image=as_they_are,
            workers=workers,
            clock=SteppedClock(),
        )
        yield channel
        channel.close()


def frame(grey: int) -> Frame:
    return Frame("A", np.full((4, 4, 3), grey, np.uint8), capture_ns=grey, arrival_ns=0, ingest=Span(0, 0))


def test_a_frame_goes_through_all_stages_in_order(channel: WorkerChannel) -> None:
    channel.submit(frame(3))
    detections, spans = channel.collect()
    assert detections.boxes[0, 2] == 3
    assert (detections.camera, detections.capture_ns) == ("A", 3)
    assert [span.stage for span in spans] == ["preprocess", "detect", "nms"]
    edges = [at for span in spans for at in (span.start_ns, span.end_ns)]
    assert edges == sorted(edges)


def test_a_second_frame_before_collecting_would_overwrite_the_input(channel: WorkerChannel) -> None:
    channel.submit(frame(1))
    with pytest.raises(RuntimeError, match="A: a frame was submitted before"):
        channel.submit(frame(2))
    assert channel.collect()[0].boxes[0, 2] == 1
    with pytest.raises(RuntimeError, match="A: nothing was submitted"):
        channel.collect()


def test_a_failure_reaches_whoever_collects_and_the_channel_goes_on(channel: WorkerChannel, request_: Request) -> None:
    request_.fails = True
    channel.submit(frame(1))
    with pytest.raises(RuntimeError, match="the runtime failed"):
        channel.collect()
    request_.fails = False
    channel.submit(frame(2))
    assert channel.collect()[0].boxes[0, 2] == 2
