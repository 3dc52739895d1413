"""Images that go to the GPU as they come: raw pictures of live cameras, and JPEGs, also damaged ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np
import pytest

from perception import backends
from perception.bench_cuda import to_nv12
from perception.clock import LiveClock, SteppedClock
from perception.config import Config, FileCamera, OutputConfig, SyncConfig
from perception.errors import BackendError
from perception.ingest.cameras.camera import RawPicture
from perception.ingest.live import Live
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Detections, Image
from perception.output.recording import RECORDING
from perception.output.video import VIDEO
from perception.run import run
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.cuda.test_parity import Looked, assert_agree, look
from tests.drives import START_NS, encode, make_camera, open_writer, render
from tests.ingest.cameras.devices import MS, ScriptedDevice
from tests.ingest.test_decode import without_huffman_tables
from tests.models import write_colour_detector

CAMERA: Final = make_camera("CAM_FRONT", (384, 256))
"""Four times as large as the detector looks at it, so that JPEGs are decoded at a half."""
SCENES: Final = [np.asarray(cv2.GaussianBlur(render(CAMERA, at, seed=1), (0, 0), 2), np.uint8) for at in (0.0, 0.5)]


def raw(form: Any, rows: Image) -> RawPicture:
    return RawPicture(form, CAMERA.width, CAMERA.height, rows.strides[0], rows.tobytes())


def yuyv(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_YUY2), np.uint8)


PICTURES: Final[dict[str, Callable[[Image], bytes | RawPicture]]] = {
    "nv12": lambda image: raw("nv12", to_nv12(image)),
    "yuyv": lambda image: raw("yuyv", yuyv(image)),
    "uyvy": lambda image: raw("uyvy", np.ascontiguousarray(yuyv(image)[:, :, ::-1])),
    "jpeg": encode,
}
TAKEN: Final[dict[str, frozenset[str]]] = {"kernel": frozenset({"nv12", "yuyv"}), "dali": frozenset({"jpeg"})}


def config(machine: Machine | None, directory: Path) -> Config:
    model = write_colour_detector(directory / "colours.onnx", (96, 64))
    changes = {"detector.model": str(model), "detector.score_threshold": 0.3}
    return (
        machines.on_cpu("base.yaml", directory, **changes)
        if machine is None
        else machines.on_gpu(machine, "base.yaml", directory, **changes)
    )


def look_live(chosen: Config, pictures: Sequence[bytes | RawPicture]) -> Looked:
    """What the cameras' pictures become, one after the other."""
    rig, device, clock = {CAMERA.name: CAMERA}, ScriptedDevice(), LiveClock()
    camera = FileCamera(source="file", path=Path("-"), max_age_ms=60_000, timeout_s=60)
    looked = Looked(set(), [])
    with (
        closing(backends.build(chosen, rig, clock)) as backend,
        closing(
            Live(
                rig,
                {CAMERA.name: device},
                {CAMERA.name: camera},
                clock,
                SyncConfig(),
                threads=1,
                needed=backend.needed,
            )
        ) as live,
    ):
        frame_sets = live.frame_sets()
        for picture in pictures:
            device.shoot(picture, time.monotonic_ns())
            seen = look(backend, [next(frame_sets)])
            looked.formats.update(seen.formats)
            looked.detections.extend(seen.detections)
    assert live.faults() == backend.faults() == []
    return looked


@pytest.mark.parametrize("form", PICTURES)
def test_a_live_cameras_pictures_show_the_same_objects(machine: Machine, tmp_path: Path, form: str) -> None:
    pictures = [PICTURES[form](scene) for scene in SCENES]
    on_gpu = config(machine, tmp_path)

    expected, got = look_live(config(None, tmp_path), pictures), look_live(on_gpu, pictures)

    assert expected.formats == {"bgr"}
    assert got.formats == {form if form in TAKEN[on_gpu.preprocess] else "bgr"}
    assert len(got.detections) == len(expected.detections) == len(pictures)
    assert min(map(len, expected.detections)) > 0
    for one, other in zip(got.detections, expected.detections, strict=True):
        assert_agree(one, other, 0.3, margin=0.02)


class Played(NamedTuple):
    """What the one camera of a drive came to, tick by tick, and all that was wrong, with ingest and in the channel."""

    detections: dict[int, Detections]
    missing: list[str]
    failed: list[str]


def play(chosen: Config, drive: Path) -> Played:
    opened = open_drive(drive, None)
    played = Played({}, [], [])
    with (
        closing(backends.build(chosen, opened.rig, SteppedClock())) as backend,
        closing(Replay(opened, SteppedClock(), SyncConfig(), threads=1, needed=backend.needed)) as replay,
    ):
        for frames in replay.frame_sets():
            if not any(frame.decoded for frame in frames.frames):
                continue  # as the pipeline does: there is nothing to look at
            for found in look(backend, [frames]).detections:
                played.detections[found.capture_ns] = found
        played.missing.extend(replay.faults())
        played.failed.extend(backend.faults())
    return played


def write(path: Path, images: Sequence[bytes]) -> Path:
    with open_writer(path) as drive:
        for tick, data in enumerate(images):
            stamp = START_NS + tick * 100 * MS
            drive.transform("base_link", CAMERA.name, CAMERA.base_from_camera, stamp)
            drive.calibration(CAMERA, stamp)
            drive.image(CAMERA.name, stamp, data)
    return path


def with_impossible_tables(jpeg: bytes) -> bytes:
    place = jpeg.find(b"\xff\xc4") + 5
    return jpeg[:place] + b"\xff" * 10 + jpeg[place + 10 :]


GOOD: Final = encode(SCENES[0])
DAMAGED: Final = {
    "cut short": GOOD[: len(GOOD) // 2],
    "of another size": encode(render(make_camera("BIG", (96, 64)), 0.0)),
    "something else": b"version https://git-lfs.github.com/spec/v1",
    "without its last rows": GOOD[: len(GOOD) * 9 // 10] + GOOD[-2:],
    "without Huffman tables": without_huffman_tables(GOOD),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_jpeg_is_as_good_or_as_bad_as_on_the_cpu(machine: Machine, tmp_path: Path, damage: str) -> None:
    drive = write(tmp_path / "drive.mcap", [GOOD, DAMAGED[damage], GOOD])

    expected, got = play(config(None, tmp_path), drive), play(config(machine, tmp_path), drive)

    assert got.missing == expected.missing
    assert got.failed == expected.failed == []
    assert list(got.detections) == list(expected.detections)
    assert len(got.detections) == 3 - len(got.missing)
    for capture_ns in got.detections:
        assert_agree(got.detections[capture_ns], expected.detections[capture_ns], 0.3, margin=0.02)


def test_one_that_only_decoding_tells_to_be_broken_costs_its_tick(machine: Machine, tmp_path: Path) -> None:
    drive = write(tmp_path / "drive.mcap", [GOOD, with_impossible_tables(GOOD), GOOD])
    on_gpu = config(machine, tmp_path)

    expected, got = play(config(None, tmp_path), drive), play(on_gpu, drive)

    assert list(got.detections) == list(expected.detections)
    assert len(got.detections) == 2
    told, at = (got.failed, "preprocess") if on_gpu.preprocess == "dali" else (got.missing, "dropped")
    (line,) = told
    assert "does not decode" in line
    assert at in line
    assert str(START_NS + 100 * MS) in line


def test_a_jpeg_that_dali_refuses_is_decoded_on_the_cpu(machine: Machine, tmp_path: Path) -> None:
    if machine.dali is None or machine.changes["preprocess"] != "dali":
        pytest.skip("only a DALI that is played refuses on command")
    drive = write(tmp_path / "drive.mcap", [GOOD])
    expected, on_gpu = play(config(None, tmp_path), drive), config(machine, tmp_path)
    with closing(backends.build(on_gpu, open_drive(drive, None).rig, SteppedClock())) as backend:
        machine.dali.decoded, machine.dali.refuses_jpegs = 0, True
        with closing(
            Replay(open_drive(drive, None), SteppedClock(), SyncConfig(), threads=1, needed=backend.needed)
        ) as replay:
            got = look(backend, replay.frame_sets())

    assert (got.formats, machine.dali.decoded) == ({"jpeg"}, 0)
    assert backend.faults() == []
    assert_agree(got.detections[0], next(iter(expected.detections.values())), 0.3, margin=1e-5)


def test_a_dali_that_decodes_nothing_is_refused(machine: Machine, tmp_path: Path) -> None:
    if machine.dali is None or machine.changes["preprocess"] != "dali":
        pytest.skip("only a DALI that is played refuses on command")
    machine.dali.refuses_jpegs = True
    with pytest.raises(BackendError, match=r"DALI decodes no JPEG here \(refused\); use preprocess: kernel"):
        backends.build(config(machine, tmp_path), {CAMERA.name: CAMERA}, SteppedClock())


def test_a_run_records_and_draws_what_was_not_decoded(machine: Machine, tmp_path: Path) -> None:
    drive = write(tmp_path / "drive.mcap", [GOOD, GOOD])
    output = OutputConfig(directory=tmp_path / "out", record_images=True, video=True)
    chosen = config(machine, tmp_path).model_copy(update={"replay": drive, "pace": "stepped", "output": output})

    assert run(chosen, Path("a test")) == 0

    recorded = open_drive(output.directory / RECORDING, None)
    assert [packet.data for packet in recorded.packets()] == [GOOD, GOOD]
    with av.open(str(output.directory / VIDEO)) as video:
        assert len(list(video.decode(video=0))) == 2
