"""The pipeline on real recordings and a real detector, where they lie beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perception import evaluate, run

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODEL = SHARED / "models" / "yolox_nano.onnx"


def replay(name: str, out: Path, *more: str) -> dict[str, Any]:
    drive = SHARED / "drives" / name
    for path in (drive, MODEL):
        if not path.is_file():
            pytest.skip(f"{path} is not here")
    paths = ["--replay", str(drive), "--model", str(MODEL), "--out", str(out)]
    assert run.main([*paths, "--pace", "stepped", *more]) == 0
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_three_cameras_of_a_street_with_ground_truth(tmp_path: Path) -> None:
    summary = replay("dgp_scene_01.mcap", tmp_path, "--config", "cpu.yaml", "--video")
    assert summary["ticks"]["published"] == 3
    assert summary["faults"] == []
    assert (tmp_path / "video.mp4").stat().st_size > 100_000
    assert evaluate.main([str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["detection"]["by_range"][0]["recall"] > 0.9  # within 20 m
    assert found["tracks"]["by_range"][0]["error_mean_m"] < 1.5


def test_fifty_one_frames_of_one_camera_are_exact_whatever_the_threads(tmp_path: Path) -> None:
    for threads in ("1", "2"):
        summary = replay("kitti_odometry_1.mcap", tmp_path / threads, "--config", "orin.yaml", "--threads", threads)
        assert summary["ticks"]["published"] == 51
    tracks = [(tmp_path / threads / "tracks.jsonl").read_bytes() for threads in ("1", "2")]
    assert tracks[0] == tracks[1]
    assert b'"class":"car"' in tracks[0]
