"""The whole of `device: cuda` against the whole of `device: cpu`: the same frames, the same objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perception import backends
from perception.clock import SteppedClock
from perception.config import Config, OutputConfig
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Detections, FrameSet, ImageFormat, Needed, format_of
from perception.output.jsonl import TRACKS, read_tracks
from perception.run import run
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.detect.test_yolox_nano import iou
from tests.drives import write_drive
from tests.models import write_colour_detector

CITY = "base.yaml"
"""The sample drive, with the stock INT8 detector."""


class Looked(NamedTuple):
    """What ingest gave to the channels of a config, and what these found."""

    formats: set[ImageFormat]
    detections: list[Detections]


def look(backend: backends.Backend, frame_sets: Iterable[FrameSet]) -> Looked:
    """Camera by camera, all cameras of a frame set at a time."""
    looked, channels = Looked(set(), []), backend.channels[0]
    for frames in frame_sets:
        for frame in frames.frames:
            looked.formats.add(format_of(frame.image))
            channels[frame.camera].submit(frame)
        results = [channels[frame.camera].collect() for frame in frames.frames]
        looked.detections.extend(result[0] for result in results if result is not None)
    return looked


def look_at_drive(chosen: Config, count: int | None) -> Looked:
    """The first frame sets of the drive, each image made what the channels need."""
    with closing(open_backend(chosen)) as backend:
        looked = look(backend, frames_of(chosen, count, backend.needed))
    assert backend.faults() == []
    return looked


def open_backend(chosen: Config) -> backends.Backend:
    assert chosen.replay is not None
    return backends.build(chosen, open_drive(chosen.replay, chosen.rig).rig, SteppedClock())


def frames_of(chosen: Config, count: int | None, needed: Mapping[str, Needed] | None = None) -> list[FrameSet]:
    """The first frame sets of the drive, as ingest gives them to channels that need that."""
    assert chosen.replay is not None
    drive = open_drive(chosen.replay, chosen.rig)
    with closing(Replay(drive, SteppedClock(), chosen.sync, threads=1, needed=needed)) as source:
        return list(islice(source.frame_sets(), count))


def assert_agree(got: Detections, expected: Detections, threshold: float, margin: float) -> None:
    """All that is well over the threshold on one side is there on the other too."""
    assert got.camera == expected.camera
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
    count = 1 if machine.played else None

    expected, got = look_at_drive(on_cpu, count), look_at_drive(on_gpu, count)

    assert (expected.formats, got.formats) == ({"bgr"}, {"jpeg" if on_gpu.preprocess == "dali" else "bgr"})
    assert len(got.detections) == len(expected.detections) >= 6
    assert sum(map(len, expected.detections)) > len(expected.detections) / 2
    for one, other in zip(got.detections, expected.detections, strict=True):
        assert one.capture_ns == other.capture_ns
        assert_agree(one, other, on_cpu.detector.score_threshold, margin=0.05)
        assert one.attributes is not None


def test_a_run_gives_the_same_bytes(machine: Machine, tmp_path: Path) -> None:
    """Images of the detector's own size are not resampled, so there is nothing for CPU and GPU to differ in.

    But a GPU rounds otherwise than the CPU where it decodes JPEGs.
    """
    image_format = "jpeg" if machine.played else "png"
    model = write_colour_detector(tmp_path / "colours.onnx", (96, 64))
    drive = write_drive(
        tmp_path / "drive.mcap",
        cameras=("A", "B"),
        ticks=8,
        image_size=(96, 64),
        image_format=image_format,
        lidar=False,
    )
    given = {"replay": str(drive.path), "detector.model": str(model), "detector.score_threshold": 0.3}
    given |= {"pace": "stepped"}

    expected = tracks_of_run(machines.on_cpu(CITY, tmp_path, **given), tmp_path / "cpu")
    got = tracks_of_run(machines.on_gpu(machine, CITY, tmp_path, **given), tmp_path / "cuda")

    assert any(line.tracks for line in read_tracks(tmp_path / "cpu" / TRACKS))
    assert got == expected


def tracks_of_run(chosen: Config, directory: Path) -> bytes:
    assert run(chosen.model_copy(update={"output": OutputConfig(directory=directory)}), Path("a test")) == 0
    return (directory / TRACKS).read_bytes()
