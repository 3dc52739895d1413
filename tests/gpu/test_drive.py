"""The whole sample drive on the GPU, with all that a run has: its tracks against the CPU's, and ten thousand ticks."""

from __future__ import annotations

from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest

from perception.cuda import Gpu
from perception.messages import Track, TrackSet
from perception.output.jsonl import TRACKS, read_tracks
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.cuda.test_parity import CITY, frames_of, open_backend, tracks_of_run
from tests.gpu.test_channel import resident_bytes

TICKS = 10_000
SETTLED = 500


@pytest.fixture(params=machines.ON_GPU)
def machine(request: pytest.FixtureRequest, real_gpu: Gpu) -> Machine:
    del real_gpu  # skips without one
    how: tuple[Literal["tensorrt", "onnxruntime"], Literal["kernel", "dali"]] = request.param
    return machines.here(*how)


class Agreement(NamedTuple):
    """How much of the tracks of two runs is the same: the smaller share of both sides, and how far apart these are."""

    share: float
    median: float


def agreement(ours: list[TrackSet], theirs: list[TrackSet]) -> Agreement:
    """A track is the same where the other run has one of its class, no farther off than a tenth of its range."""
    shares, apart = [], []
    for one, other in ((ours, theirs), (theirs, ours)):
        nearest = [
            min((distance(track, of) for of in there.tracks if of.label == track.label), default=np.inf)
            for here, there in zip(one, other, strict=True)
            for track in here.tracks
        ]
        same = [of for of in nearest if of < 0.1]
        shares.append(len(same) / len(nearest))
        apart += same
    return Agreement(min(shares), float(np.median(apart)))


def distance(one: Track, other: Track) -> float:
    """As a part of the range: far away, a pixel is metres."""
    return float(np.linalg.norm(one.position - other.position) / max(np.linalg.norm(one.position), 5.0))


@pytest.mark.timeout(900)
def test_its_tracks_are_the_cpus(machine: Machine, tmp_path: Path) -> None:
    for name, chosen in (
        ("cpu", machines.on_cpu(CITY, tmp_path, pace="stepped")),
        ("cuda", machines.on_gpu(machine, CITY, tmp_path, pace="stepped")),
    ):
        tracks_of_run(chosen, tmp_path / name)
    cpu, cuda = (list(read_tracks(tmp_path / name / TRACKS)) for name in ("cpu", "cuda"))

    assert [one.stamp_ns for one in cpu] == [one.stamp_ns for one in cuda]
    assert sum(len(one.tracks) for one in cpu) > 3 * len(cpu)
    agreed = agreement(cpu, cuda)
    # On one CPU, OpenVINO and ONNX Runtime agree on 0.83 of the tracks, 0.014 of the range apart: INT8 rounds the
    # last bit of a float to a whole step. With all of the GPU path but its inference on the CPU: 0.99 and 0.001.
    assert agreed.share > 0.75
    assert agreed.median < 0.03


@pytest.mark.timeout(1200)
def test_memory_stays_what_it_is(machine: Machine, real_gpu: Gpu, tmp_path: Path) -> None:
    chosen = machines.on_gpu(machine, CITY, tmp_path)
    with closing(open_backend(chosen)) as backend:
        frame_sets = frames_of(chosen, 50, backend.needed)
        channels = backend.channels[0]
        for tick, frames in enumerate(islice(cycle(frame_sets), TICKS)):
            for frame in frames.frames:
                channels[frame.camera].submit(frame)
            assert None not in [channels[frame.camera].collect() for frame in frames.frames], backend.faults()
            if tick == SETTLED:
                settled = free_bytes(real_gpu), resident_bytes()
        now = free_bytes(real_gpu), resident_bytes()

    assert now[0] == settled[0]
    assert now[1] < settled[1] * 1.01 + (1 << 20)


def free_bytes(gpu: Gpu) -> int:
    with gpu.current():
        return gpu.free_bytes()
