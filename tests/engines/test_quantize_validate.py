"""The two commands, from a recording to an accepted or a refused model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import quantize, validate
from perception.detect import manifest, openvino
from perception.hashing import sha256
from tests.drives import write_drive
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


def _validate(workshop: Path, model: str = "model.onnx") -> int:
    files = [str(workshop / model), str(workshop / "model.int8.onnx"), "--drives", str(workshop / "drive.mcap")]
    return validate.main([*files, "--tags", "light=day", "--limits", str(workshop / "validate.yaml")])


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
    assert [entry.node for entry in before.left_out] == ["second_glass"]  # the last layer before the outputs

    assert _validate(workshop) == 0
    after = manifest.read_manifest(made)
    assert after is not None
    assert after.accuracy is not None
    assert after.accuracy.images == 8
    assert after.accuracy.map50.float32 is not None
    assert after.accuracy.map50.float32 > 0.5
    assert set(after.accuracy.per_condition) == {"day"}


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
