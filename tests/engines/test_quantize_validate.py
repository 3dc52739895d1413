"""The two commands, from a recording to an accepted or a refused model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import quantize, validate
from perception.detect import manifest, openvino
from perception.hashing import sha256
from tests.detect.onnx_models import write as write_table
from tests.drives import (
    START_NS,
    THINGS,
    Thing,
    WrittenDrive,
    encode,
    make_camera,
    open_writer,
    render,
    write_drive,
)
from tests.engines.onnx_models import write_quantisable_detector

PROFILE = "require: [{frames: 2, tags: {light: [day], camera: [every]}}]\n"


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with a float model, a drive and settings for so short a drive."""
    write_quantisable_detector(tmp_path / "model.onnx")
    write_drive(tmp_path / "drive.mcap", cameras=("CAM_FRONT", "CAM_LEFT"), ticks=4, lidar=False)
    (tmp_path / "profile.yaml").write_text(PROFILE)
    (tmp_path / "quantize.yaml").write_text("{every: 1, sensitivity_frames: 2, max_left_out: 0}\n")
    (tmp_path / "validate.yaml").write_text("{every: 1, min_class_objects: 1}\n")
    return tmp_path


def _quantize(workshop: Path, *more: str) -> int:
    files = [str(workshop / "model.onnx"), "--calibrate", str(workshop / "drive.mcap")]
    settings = ["--profile", str(workshop / "profile.yaml"), "--settings", str(workshop / "quantize.yaml")]
    out = ["--out", str(workshop / "model.int8.onnx"), "--method", "minmax"]
    return quantize.main([*files, *settings, *out, *more])


def _validate(workshop: Path, model: str = "model.onnx", *more: str) -> int:
    files = [str(workshop / model), str(workshop / "model.int8.onnx"), "--drives", str(workshop / "drive.mcap")]
    return validate.main([*files, "--tags", "light=day", "--limits", str(workshop / "validate.yaml"), *more])


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was wrong, in one line."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def _spoil(workshop: Path) -> None:
    """Make the INT8 model blind, and its manifest true to that."""
    path = workshop / "model.int8.onnx"
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_quantized"))
    weights.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weights)), weights.name))
    onnx.save(model, path)
    described = json.loads(manifest.manifest_path(path).read_text())
    described["model"]["sha256"] = sha256(path)
    manifest.manifest_path(path).write_text(json.dumps(described))


def test_a_gap_is_refused_and_leaves_nothing(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=night") == 2
    assert "day + CAM_FRONT: 0 of 2 frames; day + CAM_LEFT: 0 of 2 frames" in capsys.readouterr().err
    assert not list(workshop.glob("*int8*"))


def test_an_allowed_gap_is_in_the_manifest(workshop: Path) -> None:
    assert _quantize(workshop, "--allow-gap", "day") == 0
    described = manifest.read_manifest(workshop / "model.int8.onnx")
    assert described is not None
    assert described.calibration.allowed_gaps == (
        "day + CAM_FRONT: 0 of 2 frames",
        "day + CAM_LEFT: 0 of 2 frames",
    )
    assert "with 2 gaps in its coverage" in described.line()


def test_from_recording_to_an_accepted_model(workshop: Path) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    made = workshop / "model.int8.onnx"
    before = manifest.read_manifest(made)
    assert before is not None
    assert before.accuracy is None
    assert before.calibration.frames == 8
    assert before.calibration.given_tags == {"light": ("day",)}
    assert [entry.node for entry in before.left_out] == ["second_glass"]  # the last layer before the outputs

    assert _validate(workshop) == 0
    after = manifest.read_manifest(made)
    assert after is not None
    assert after.accuracy is not None
    assert after.accuracy.images == 8
    assert after.accuracy.map50.float32 is not None
    assert after.accuracy.map50.float32 > 0.5
    assert set(after.accuracy.per_condition) == {"day"}
    assert after.accuracy.given_tags == {"light": ("day",)}


def test_the_same_recording_gives_the_same_model(workshop: Path) -> None:
    hashes = []
    for _ in range(2):
        assert _quantize(workshop, "--tags", "light=day") == 0
        hashes.append(sha256(workshop / "model.int8.onnx"))
    assert hashes[0] == hashes[1]


def test_golden_values_are_what_the_model_says(workshop: Path) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    described = manifest.read_manifest(workshop / "model.int8.onnx")
    assert described is not None
    golden = described.golden
    image = np.random.default_rng(golden.seed).integers(0, 256, golden.shape).astype(np.float32)
    detector = openvino.load(workshop / "model.int8.onnx", threads=1, cameras=1)
    request = detector.request()
    request.input[...] = image[0]
    request.submit()
    for told, output in zip(golden.outputs, request.collect(), strict=True):
        np.testing.assert_allclose(output.reshape(-1)[list(told.indices)], told.values, atol=1e-3 + 0.05 * told.std)


@pytest.mark.parametrize("boxes_first", [True, False])
def test_golden_values_see_scores_beside_boxes(tmp_path: Path, *, boxes_first: bool) -> None:
    """Boxes in pixels and scores in one output: a runtime that lost the scores is far off, one that rounds is not."""
    rng = np.random.default_rng(1)
    table = np.concatenate([rng.uniform(0, 640, (1, 84, 4)), rng.beta(0.3, 2, (1, 84, 6))], axis=2).astype(np.float32)
    blind = table * np.array([1] * 4 + [0] * 6, np.float32)
    rounded = table + rng.normal(0, 0.01, table.shape) * table.std(axis=1)
    if not boxes_first:
        table, blind, rounded = (values.transpose(0, 2, 1) for values in (table, blind, rounded))
    model = onnx.load(write_table(tmp_path / "table.onnx", {"output": np.ascontiguousarray(table)}))

    golden = quantize._golden(model, (1, 3, 64, 64))

    assert golden.deviation({"output": table}) < 1e-5
    assert golden.deviation({"output": blind}) > 0.5
    assert golden.deviation({"output": rounded}) < 0.02
    channels = np.unravel_index(golden.outputs[0].indices, table.shape)[2 if boxes_first else 1]
    assert set(channels.tolist()) == set(range(10))


def test_a_model_that_lost_too_much_is_removed(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    _spoil(workshop)
    assert _validate(workshop) == 1
    assert "mAP50 fell by" in capsys.readouterr().err
    assert not list(workshop.glob("*int8*"))


def test_a_model_is_held_against_its_own_source_only(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    detector = onnx.load(workshop / "model.onnx")
    detector.producer_name = "another"
    onnx.save(detector, workshop / "another.onnx")
    assert _validate(workshop, "another.onnx") == 2
    assert "not made from" in capsys.readouterr().err


def test_a_drive_without_truth_cannot_validate(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    write_drive(workshop / "drive.mcap", ticks=3, lidar=False, truth=False)
    assert _validate(workshop) == 2
    assert "no ground truth" in capsys.readouterr().err


def test_a_changed_model_is_not_the_one_in_its_manifest(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    with (workshop / "model.int8.onnx").open("ab") as file:
        file.write(b"\x00")
    assert _validate(workshop) == 2
    assert "not the file that" in capsys.readouterr().err


# Nothing to lose


def _write_drive(path: Path, things: Sequence[Thing]) -> None:
    """A drive past things that are in its labels only: the images show nothing."""
    camera = make_camera("CAM_FRONT")
    with open_writer(path) as drive:
        for tick in range(4):
            stamp = START_NS + tick * 100_000_000
            drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            drive.annotations(stamp, things=things)
            drive.image("CAM_FRONT", stamp, encode(np.full((192, 320, 3), 110, np.uint8)))


def test_no_objects_are_no_proof(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    _write_drive(workshop / "drive.mcap", ())
    assert _validate(workshop) == 2
    assert "no objects to find in 4 images" in _one_line(capsys)
    described = manifest.read_manifest(workshop / "model.int8.onnx")
    assert described is not None
    assert described.accuracy is None


def test_a_float_model_that_finds_nothing_is_no_measure(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    _write_drive(workshop / "drive.mcap", THINGS)
    assert _validate(workshop) == 2
    assert "so INT8 has nothing to lose" in _one_line(capsys)
    assert (workshop / "model.int8.onnx").exists()


def test_a_drive_without_an_image_cannot_validate(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    camera = make_camera("CAM_FRONT")
    with open_writer(workshop / "drive.mcap") as drive:
        drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, START_NS)
        drive.calibration(camera, START_NS)
        drive.image("CAM_FRONT", START_NS, encode(render(camera, 0.0))[:200])
    assert _validate(workshop) == 2
    fault, error = capsys.readouterr().err.splitlines()
    assert "frame dropped" in fault
    assert error.startswith("error: no frames in ")


# Where it is written


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("model.bin", "ends in .onnx, such as model.int8.onnx"),
        ("folder.onnx", "is a directory"),
        ("model.onnx", "is MODEL itself"),
        ("folder.onnx/../model.onnx", "is MODEL itself"),
        ("link.onnx", "is MODEL itself"),
        ("model.onnx/int8.onnx", "cannot be written"),
    ],
)
def test_places_that_a_model_cannot_have(
    workshop: Path, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    (workshop / "folder.onnx").mkdir()
    (workshop / "link.onnx").symlink_to(workshop / "model.onnx")
    before = {path: path.is_file() and sha256(path) for path in workshop.iterdir()}
    assert _quantize(workshop, "--tags", "light=day", "--out", str(workshop / out)) == 2
    assert message in _one_line(capsys)
    assert {path: path.is_file() and sha256(path) for path in workshop.iterdir()} == before


def test_what_cannot_be_written_leaves_the_old_and_nothing_partial(
    workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert _quantize(workshop, "--tags", "light=day") == 0
    before = {path: sha256(path) for path in workshop.iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(manifest, "write_manifest", full)
    assert _quantize(workshop, "--tags", "light=day") == 2
    assert "No space left on device" in _one_line(capsys)
    assert {path: sha256(path) for path in workshop.iterdir()} == before


# What is not there


def test_a_model_that_is_missing(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workshop / "model.onnx").unlink()
    assert _quantize(workshop) == 2
    assert "model.onnx: no such model file" in _one_line(capsys)
    assert _validate(workshop) == 2
    assert "model.onnx: no such model file" in _one_line(capsys)


def test_an_int8_model_that_left_its_manifest_behind(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    (workshop / "model.int8.onnx").unlink()
    assert _validate(workshop) == 2
    assert "model.int8.onnx: no such model file" in _one_line(capsys)


def test_a_model_for_several_images_at_once_is_refused(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(workshop / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, workshop / "model.onnx")
    assert _quantize(workshop) == 2
    assert "only takes 4 images at once, calibration has one; export it with a batch size of 1" in _one_line(capsys)


# Damage, interruption, configuration


def test_a_corrupt_image_is_left_out_by_both(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write_drive(workshop / "drive.mcap", ticks=4, lidar=False)
    _spoil_an_image(written)
    assert _quantize(workshop, "--tags", "light=day", "--allow-gap", "day") == 0
    described = manifest.read_manifest(workshop / "model.int8.onnx")
    assert described is not None
    assert described.calibration.frames == 3
    told = capsys.readouterr().err
    assert told.count("frame dropped") == told.count("\n") == 1  # once, though all are looked at more often
    assert _validate(workshop) == 0
    assert "frame dropped" in capsys.readouterr().err


def _spoil_an_image(written: WrittenDrive) -> None:
    """Write the drive's second image anew, cut off in its head."""
    (camera,) = written.rig.values()
    with open_writer(written.path) as drive:
        for tick, stamp in enumerate(written.stamps_ns):
            seconds = (stamp - START_NS) / 1e9
            drive.transform("base_link", camera.name, camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            drive.annotations(stamp)
            image = encode(render(camera, seconds))
            drive.image(camera.name, stamp, image[:200] if tick == 1 else image)


def test_a_recording_that_was_cut_off_is_used_up_to_there(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = workshop / "drive.mcap"
    write_drive(path, ticks=40, lidar=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert _quantize(workshop, "--tags", "light=day") == 0
    described = manifest.read_manifest(workshop / "model.int8.onnx")
    assert described is not None
    assert 10 < described.calibration.frames < 40
    assert _validate(workshop) == 0
    told = capsys.readouterr().err.splitlines()
    assert ["damaged at byte" in line for line in told] == [True, True]  # by each of the two


def test_images_beyond_the_labels_are_left_out_and_told(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize(workshop, "--tags", "light=day") == 0
    camera = make_camera("CAM_FRONT")
    with open_writer(workshop / "drive.mcap") as drive:
        for tick in range(8):
            stamp = START_NS + tick * 100_000_000
            drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            if tick < 2:
                drive.annotations(stamp)
            drive.image("CAM_FRONT", stamp, encode(render(camera, tick / 10)))
    assert _validate(workshop) == 0
    assert "3 images left out, for which it has no ground truth" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["quantize", "validate"])
def test_an_interruption_is_one_line(
    workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    assert _quantize(workshop, "--tags", "light=day") == 0
    before = {path: sha256(path) for path in workshop.iterdir()}
    capsys.readouterr()
    monkeypatch.setattr("engines.runner.Tensors.__call__", interrupted)
    assert (_quantize(workshop, "--tags", "light=day") if command == "quantize" else _validate(workshop)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted: ")
    assert {path: sha256(path) for path in workshop.iterdir()} == before


def test_validation_suppresses_as_the_config_says(workshop: Path) -> None:
    """With one detection an image, the three things in it cannot all be found."""
    assert _quantize(workshop, "--tags", "light=day") == 0
    found = {}
    for most in (100, 1):
        (workshop / "run.yaml").write_text(f"nms: {{max_detections: {most}}}\n")
        assert _validate(workshop, "model.onnx", "--config", str(workshop / "run.yaml")) == 0
        described = manifest.read_manifest(workshop / "model.int8.onnx")
        assert described is not None
        assert described.accuracy is not None
        found[most] = described.accuracy.map50.float32 or 0.0
    assert 0 < found[1] < found[100]
