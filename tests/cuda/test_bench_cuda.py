"""The bench of the GPU path on a machine that is played: what it does is real, its figures are nobody's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception import bench, bench_cuda, bench_floors
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.detect.tensorrt_double import refuse_captures
from tests.drives import make_camera, render, write_drive
from tests.kernels.grid import Grid
from tests.models import write_colour_detector


@pytest.fixture(params=[True, False], ids=["graphs", "enqueued"])
def played(grid: Grid, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Machine]:
    monkeypatch.setattr(bench_floors, "COPY_BYTES", 4 << 20)
    monkeypatch.setattr(bench_cuda, "SIZE", (320, 192))
    machine = machines.play(grid, monkeypatch, graphs=request.param)
    yield machine
    assert machine.played is not None
    assert machine.played.broken == machine.played.live == []


def measure(played: Machine, directory: Path) -> dict[str, Any]:
    """What ``python -m perception.bench`` writes of three ticks."""
    model = write_colour_detector(directory / "colours.onnx", (96, 64))
    drive = write_drive(directory / "drive.mcap", cameras=("A", "B"), ticks=4, image_size=(96, 64), lidar=False)
    plans, measured = directory / "plans", directory / "measured.json"
    machines.on_gpu(played, "base.yaml", directory, **{"replay": str(drive.path), "detector.model": str(model)})

    arguments = ["--device", "cuda", "--config", "base.yaml", "--replay", str(drive.path), "--model", str(model)]
    arguments += ["--ticks", "3", "--set", f"engine.directory={plans}", "--json", str(measured)]
    assert bench.main(arguments) == 0
    result: dict[str, Any] = json.loads(measured.read_text())
    return result


def test_it_measures_what_runs_and_what_it_cannot_go_below(
    played: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = measure(played, tmp_path)

    assert played.played is not None
    assert set(result["kinds"]) == ({"enqueued", "graph"} if played.played.names("cuGraphLaunch") else {"enqueued"})
    assert ("graph" in result["kinds"]) == any("one CUDA graph" in line for line in result["runtime"])
    for kind in result["kinds"].values():
        assert list(kind["together"]) == list(kind["alone"]) == ["preprocess", "detect", "nms"]
        assert all(0 < of["p50"] <= of["p99"] <= of["p99.9"] for of in (kind["tick"], *kind["alone"].values()))
    assert result["bare_engine"]["alone"]["p50"] > 0
    floor = result["preprocess_floor"]
    assert floor["ms"] == pytest.approx(floor["host_ms"] + floor["upload_ms"] + floor["gpu_ms"])
    assert result["gpu_memory_change_bytes"] == 0
    assert "preprocess, one camera alone" in capsys.readouterr().out


@pytest.mark.parametrize("played", [True], indirect=True, ids=["graphs"])
def test_where_a_capture_is_refused_it_measures_what_is_enqueued(
    played: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert played.played is not None
    refuse_captures(played.played, monkeypatch, after=1)
    result = measure(played, tmp_path)
    assert list(result["kinds"]) == ["enqueued"]
    assert result["runtime"][-1].startswith("work is enqueued, not launched as a graph: that of CAMERA_1 cannot be ")


def test_without_a_gpu_it_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--device", "cuda", "--ticks", "1"]) == bench.EXIT_REFUSED
    assert capsys.readouterr().err.startswith("error: device: cuda was asked for, but ")


def test_nv12_is_what_opencv_takes_for_it() -> None:
    image = render(make_camera("A", (64, 48)), 0.0)
    back = cv2.cvtColor(bench_cuda.to_nv12(image), cv2.COLOR_YUV2BGR_NV12)
    assert np.abs(back[::2, ::2].astype(int) - image[::2, ::2]).mean() < 12  # chroma is at half the resolution
