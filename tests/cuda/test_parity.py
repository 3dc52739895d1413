"""The whole of `device: cuda` against the whole of `device: cpu`: the same frames, the same objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from perception import backends
from perception.clock import SteppedClock
from perception.config import Config, OutputConfig
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Detections, FrameSet
from perception.output.jsonl import TRACKS, read_tracks
from perception.run import run
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.detect.test_yolox_nano import iou
from tests.drives import write_drive
from tests.kernels.grid import Grid
from tests.models import write_colour_detector

CITY = "base.yaml"
"""The sample drive, with the stock INT8 detector."""

PLAYED = [pytest.param(True, id="played, graphs"), pytest.param(False, id="played, enqueued")]


@pytest.fixture(params=[*PLAYED, *machines.ON_GPU])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    if isinstance(request.param, tuple):
        request.getfixturevalue("real_gpu")
        yield machines.here(*request.param)
        return
    grid: Grid = request.getfixturevalue("grid")
    played = machines.play(grid, monkeypatch, graphs=request.param)
    yield played
    assert played.played is not None
    assert played.played.broken == []
    assert played.played.live == []


def detections(chosen: Config, frame_sets: list[FrameSet]) -> list[Detections]:
    """What the channels of a config find, camera by camera, all cameras of a frame set at a time."""
    assert chosen.replay is not None
    with closing(open_backend(chosen)) as backend:
        found = []
        for frames in frame_sets:
            for frame in frames.frames:
                backend.channels[0][frame.camera].submit(frame)
            results = [backend.channels[0][frame.camera].collect() for frame in frames.frames]
            found += [result[0] for result in results if result is not None]
    assert backend.faults() == []
    return found


def open_backend(chosen: Config) -> backends.Backend:
    assert chosen.replay is not None
    return backends.build(chosen, open_drive(chosen.replay, chosen.rig).rig, SteppedClock())


def frames_of(chosen: Config, count: int | None) -> list[FrameSet]:
    """The first frame sets of the drive, as ingest gives them to the channels."""
    assert chosen.replay is not None
    with closing(Replay(open_drive(chosen.replay, chosen.rig), SteppedClock(), chosen.sync, threads=1)) as source:
        return list(islice(source.frame_sets(), count))


def assert_agree(got: Detections, expected: Detections, threshold: float, margin: float) -> None:
    """All that is well over the threshold on one side is there on the other too."""
    assert (got.camera, got.capture_ns) == (expected.camera, expected.capture_ns)
    for ours, theirs in ((got, expected), (expected, got)):
        for box, score, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
            if score < threshold + margin:
                continue
            same = (theirs.labels == label) & (np.abs(theirs.scores - score) < margin)
            overlap = iou(tuple(box), theirs.boxes[same]).max(initial=0)
            assert overlap > 0.85, f"{got.camera}: {label} at {box} with {score:.3f}: {overlap:.3f} {theirs.scores}"


def test_the_sample_drives_frames_show_the_same_objects(machine: Machine, tmp_path: Path) -> None:
    """INT8 rounds a grey level's difference to a whole step, thus the margin."""
    on_cpu, on_gpu = machines.on_cpu(CITY, tmp_path), machines.on_gpu(machine, CITY, tmp_path)
    frame_sets = frames_of(on_cpu, 1 if machine.played else None)

    expected, got = detections(on_cpu, frame_sets), detections(on_gpu, frame_sets)

    assert len(got) == len(expected) == 6 * len(frame_sets)
    assert sum(map(len, expected)) > 3 * len(frame_sets)
    for one, other in zip(got, expected, strict=True):
        assert_agree(one, other, on_cpu.detector.score_threshold, margin=0.05)
        assert one.attributes is not None


def test_a_run_gives_the_same_bytes(machine: Machine, tmp_path: Path) -> None:
    """Images of the detector's own size are not resampled, so there is nothing for CPU and GPU to differ in."""
    model = write_colour_detector(tmp_path / "colours.onnx", (96, 64))
    drive = write_drive(tmp_path / "drive.mcap", cameras=("A", "B"), ticks=8, image_size=(96, 64), lidar=False)
    given = {"replay": str(drive.path), "detector.model": str(model), "detector.score_threshold": 0.3}
    given |= {"pace": "stepped"}

    expected = tracks_of_run(machines.on_cpu(CITY, tmp_path, **given), tmp_path / "cpu")
    got = tracks_of_run(machines.on_gpu(machine, CITY, tmp_path, **given), tmp_path / "cuda")

    assert any(line.tracks for line in read_tracks(tmp_path / "cpu" / TRACKS))
    assert got == expected


def tracks_of_run(chosen: Config, directory: Path) -> bytes:
    assert run(chosen.model_copy(update={"output": OutputConfig(directory=directory)}), Path("a test")) == 0
    return (directory / TRACKS).read_bytes()
