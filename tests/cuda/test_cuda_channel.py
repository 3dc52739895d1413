"""What the channel may do in which order, on a driver that does only what it is asked to, and only when it must."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest

from perception.clock import SteppedClock
from perception.config import Config
from perception.cuda import Gpu
from perception.cuda_backend import ChannelParts
from perception.cuda_channel import CudaChannel
from perception.detect.recognise import Recognised
from perception.errors import GpuError
from perception.faults import Faults
from perception.messages import Detections
from tests.cuda.conftest import known_kernels, open_gpu
from tests.cuda.double import MS_PER_PIECE, Double
from tests.cuda.echo import CAMERA, SPEC, EchoContext, frame, head, score
from tests.kernels.grid import Grid

LAUNCHES = 9  # of kernels after the inference


class Rig:
    """A channel on a double, and what there is to look at."""

    def __init__(self, double: Double, gpu: Gpu, **config: Any) -> None:
        self.double = double
        self.faults = Faults()
        engine: Any = type("Engine", (), {"context": lambda _, stream: EchoContext(double, gpu, stream)})()
        with gpu.current():
            self.module, known = known_kernels(gpu)
        device: Any = type("Device", (), {"gpu": gpu, "kernels": known})
        recognised = Recognised(head(), SPEC, ())
        parts = ChannelParts(Config(**config), device, engine, recognised, "kernel", SteppedClock(), self.faults)
        self.channel: CudaChannel = parts.channel(CAMERA)

    def run(self, grey: int) -> float:
        """A frame through the channel: the score that comes out."""
        self.channel.submit(frame(grey))
        return found(self.channel)


def found(channel: CudaChannel) -> float:
    result = channel.collect()
    assert result is not None
    detections: Detections = result[0]
    assert len(detections) == 1
    return float(detections.scores[0])


@pytest.fixture(params=["memory of its own", "shared memory"])
def rig(grid: Grid, request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from _rig(Double(grid, integrated=request.param == "shared memory"), bindings=True)


@pytest.fixture
def enqueued(grid: Grid) -> Iterator[Rig]:
    yield from _rig(Double(grid), bindings=False)


def _rig(double: Double, *, bindings: bool) -> Iterator[Rig]:
    with open_gpu(double, bindings=bindings) as gpu:
        rig = Rig(double, gpu)
        yield rig
        rig.channel.close()
        with gpu.current():
            rig.module.close()
    assert double.broken == []
    assert double.live == []
    assert all(stack == [] for stack in double.contexts.values())


def test_each_frame_gives_its_own_result(rig: Rig) -> None:
    for grey in (10, 250, 90):
        assert rig.run(grey) == pytest.approx(score(grey), abs=1e-6)


def test_a_graph_gives_what_enqueueing_gave(rig: Rig) -> None:
    before = [rig.run(grey) for grey in (10, 250, 90)]
    rig.channel.capture(frame(0))
    rig.double.calls.clear()

    assert [rig.run(grey) for grey in (10, 250, 90)] == before
    assert rig.double.names("cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "infer") == []
    assert rig.double.names("cuGraphLaunch") == ["cuGraphLaunch"] * 3


def test_without_cuda_python_it_is_enqueued_with_the_same_results(enqueued: Rig) -> None:
    for grey in (10, 250, 90):
        assert enqueued.run(grey) == pytest.approx(score(grey), abs=1e-6)


def test_the_order_of_a_tick(enqueued: Rig) -> None:
    enqueued.run(1)
    enqueued.double.calls.clear()
    enqueued.run(2)

    launches = ["cuLaunchKernel"] * LAUNCHES
    of_note = enqueued.double.names(
        "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "infer", "cuLaunchKernel", "cuEventRecord"
    )
    mark = "cuEventRecord"
    assert of_note == [
        *(mark, "cuMemcpyHtoDAsync", "cuLaunchKernel"),
        *(mark, "infer", "cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel"),
        *(mark, *launches[:7], "cuMemcpyDtoHAsync"),
        *(mark, mark),
    ]
    kernels = [call.about for call in enqueued.double.calls if call.name == "cuLaunchKernel"]
    assert kernels[:4] == ["letterbox_bgr_f32", "decode_stock", "select_best", "take"]
    assert kernels[5:10] == ["nms_keys", "select_best", "nms_order", "nms_overlaps", "nms_keep"]


@pytest.mark.parametrize("graph", [False, True])
def test_the_host_waits_once_a_tick_and_only_by_looking_at_the_last_event(rig: Rig, graph: bool) -> None:  # noqa: FBT001
    rig.run(1)
    if graph:
        rig.channel.capture(frame(1))
    rig.double.calls.clear()
    rig.channel.submit(frame(2))
    assert rig.double.names("cuStreamSynchronize", "cuEventSynchronize", "cuEventQuery") == []  # it returned at once
    found(rig.channel)

    looks = {call.about for call in rig.double.calls if call.name == "cuEventQuery"}
    assert len(looks) == 1
    assert rig.double.names("cuStreamSynchronize", "cuEventSynchronize") == []
    assert rig.double.names("cuMemAlloc", "cuMemHostAlloc", "cuEventCreate", "cuStreamCreate") == []


def test_what_was_cut_off_is_discarded_and_the_channel_not_ready_until_it_is_done(rig: Rig) -> None:
    rig.double.pieces_per_query = 0  # it hangs
    rig.channel.submit(frame(200))
    assert not rig.channel.ready()
    assert rig.channel.collect(until_ns=0) is None
    assert not rig.channel.ready()
    with pytest.raises(RuntimeError, match="A: a frame was submitted while one that was cut off was worked on"):
        rig.channel.submit(frame(3))

    rig.double.pieces_per_query = 3
    while not rig.channel.ready():
        pass
    assert rig.run(40) == pytest.approx(score(40), abs=1e-6)


def test_a_result_that_is_there_is_not_cut_off(rig: Rig) -> None:
    rig.channel.submit(frame(7))
    rig.double.advance(next(iter(rig.double.queues)))
    result = rig.channel.collect(until_ns=0)
    assert result is not None


def test_misuse_is_refused(rig: Rig) -> None:
    with pytest.raises(RuntimeError, match="A: nothing was submitted"):
        rig.channel.collect()
    rig.channel.submit(frame(1))
    with pytest.raises(RuntimeError, match="A: a frame was submitted before the one before it was collected"):
        rig.channel.submit(frame(2))
    with pytest.raises(RuntimeError, match="A: captured while a frame was worked on"):
        rig.channel.capture(frame(2))
    assert found(rig.channel) == pytest.approx(score(1), abs=1e-6)


def test_a_frame_that_cannot_be_staged_costs_that_frame_alone(rig: Rig) -> None:
    rig.channel.submit(frame(1, np.zeros((5, 7, 3), np.uint8)))
    assert rig.channel.collect() is None
    assert "image of (5, 7, 3) uint8" in rig.faults.lines()[0]
    assert rig.run(40) == pytest.approx(score(40), abs=1e-6)


def test_a_gpu_that_hangs_is_told_once(rig: Rig) -> None:
    rig.channel._hang_s = -1
    rig.double.pieces_per_query = 0
    rig.channel.submit(frame(1))
    rig.channel.collect(until_ns=0)
    assert [rig.channel.ready() for _ in range(3)] == [False] * 3
    assert rig.faults.lines() == ["A: the GPU is not done after -1 s; the camera is left out until it is"]


def test_sizes_that_were_not_captured_are_enqueued(rig: Rig) -> None:
    rig.run(1)
    rig.channel.capture(frame(1))
    half = np.full((CAMERA.height // 2, CAMERA.width // 2, 3), 77, np.uint8)
    rig.double.calls.clear()

    rig.channel.submit(frame(77, half))
    assert found(rig.channel) == pytest.approx(score(77), abs=1e-6)
    assert rig.double.names("cuGraphLaunch") == []
    assert rig.run(30) == pytest.approx(score(30), abs=1e-6)
    assert rig.double.names("cuGraphLaunch") == ["cuGraphLaunch"]


@pytest.mark.parametrize("graph", [False, True])
def test_stage_times_are_the_gpus_behind_the_hosts(rig: Rig, graph: bool) -> None:  # noqa: FBT001
    rig.run(1)
    if graph:
        rig.channel.capture(frame(1))
    before = rig.channel._now_ns()
    rig.channel.submit(frame(2))
    result = rig.channel.collect()
    assert result is not None
    spans = result[1]

    assert [span.stage for span in spans] == ["preprocess", "detect", "nms"]
    assert spans[0].start_ns >= before
    assert all(first.end_ns == second.start_ns for first, second in pairwise(spans))
    copies = 0 if rig.double.integrated else 1
    pieces = {"detect": 1 + 4 + 1, "nms": 7 + copies + 1}  # with the mark at the end
    for span in spans[1:]:
        assert span.end_ns - span.start_ns == round(pieces[span.stage] * MS_PER_PIECE * 1e6)


def test_it_can_be_used_from_any_thread(rig: Rig) -> None:
    scores: list[float] = []
    thread = threading.Thread(target=lambda: scores.append(rig.run(60)))
    thread.start()
    thread.join()
    assert scores == [pytest.approx(score(60), abs=1e-6)]
    assert rig.double.contexts[cast("int", thread.ident)] == []


def test_a_failing_driver_is_an_error_of_the_run(enqueued: Rig) -> None:
    enqueued.double.failing["cuMemcpyHtoDAsync"] = "an illegal memory access was encountered"
    with pytest.raises(GpuError, match="cuMemcpyHtoDAsync failed: an illegal memory access"):
        enqueued.channel.submit(frame(1))


def test_closing_waits_for_what_is_in_flight_and_releases_in_reverse(grid: Grid) -> None:
    double = Double(grid)
    with open_gpu(double) as gpu:
        rig = Rig(double, gpu)
        rig.run(1)
        rig.channel.capture(frame(1))
        rig.channel.submit(frame(2))
        made = [name for name in double.live if not name.startswith(("context", "module"))]
        double.calls.clear()
        rig.channel.close()
        assert double.names("cuStreamSynchronize") == ["cuStreamSynchronize"]
        released = [call.about for call in double.calls if call.about in made and call.name != "cuStreamSynchronize"]
        assert list(dict.fromkeys(released)) == made[::-1]
        with gpu.current():
            rig.module.close()
    assert double.broken == []


def test_a_channel_that_cannot_be_made_leaves_nothing_behind(grid: Grid) -> None:
    double = Double(grid)
    with open_gpu(double) as gpu, ExitStack():
        made = double.made

        def fails_late(kind: str) -> str:
            if sum(name.startswith("memory") for name in double.live) == 12:
                raise GpuError("out of memory")
            return made(kind)

        double.made = fails_late  # type: ignore[method-assign]
        with pytest.raises(GpuError, match="out of memory"):
            Rig(double, gpu)
    assert [name for name in double.live if not name.startswith("module")] == []
