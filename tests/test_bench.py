from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from perception.bench import BackToBackClock, main
from tests.drives import write_drive
from tests.models import write_colour_detector


def test_the_bench_measures_pipeline_floor_and_script_on_the_same_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_drive(tmp_path / "d.mcap", cameras=("A", "B", "C"), ticks=4).path
    model = write_colour_detector(tmp_path / "m.onnx")
    paths = ["--replay", str(drive), "--model", str(model), "--json", str(tmp_path / "bench.json")]
    assert main([*paths, "--ticks", "6"]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert (result["ticks"], result["cameras"]) == (6, 3)
    milliseconds = result["ms"]
    assert all(0 < row["p50"] <= row["p99"] for row in milliseconds.values())
    assert milliseconds["floor"]["p50"] > max(milliseconds["decode"]["p50"], milliseconds["inference"]["p50"])
    assert result["end_to_end_over_floor"] == pytest.approx(
        milliseconds["end_to_end"]["p50"] / milliseconds["floor"]["p50"]
    )
    assert "end to end over floor" in capsys.readouterr().out


HUGE = "budget={end_to_end_ms: 60000, ingest_ms: 9000, preprocess_ms: 9000, detect_ms: 9000, nms_ms: 9000, fusion_ms: 9000, output_ms: 9000}"  # noqa: E501


@pytest.fixture(name="paths")
def _paths(tmp_path: Path) -> list[str]:
    drive = write_drive(tmp_path / "d.mcap", cameras=("A", "B"), ticks=4, rate_hz=20.0).path
    model = write_colour_detector(tmp_path / "m.onnx")
    return ["--replay", str(drive), "--model", str(model), "--enforce", "--ticks", "12"]


def test_budgets_that_are_kept_pass(paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*paths, "--set", HUGE, "--json", str(tmp_path / "b.json")]) == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert (result["ticks"], result["late"], result["breaches"]) == (12, 0, [])
    assert {row["name"] for row in result["stages"]} >= {"ingest", "detect", "fusion", "end to end"}
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["ingest", "preprocess", "detect", "nms", "fusion", "output"])
def test_a_budget_that_is_not_kept_fails_and_names_the_stage(
    paths: list[str], stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*paths, "--set", HUGE, "--set", f"budget.{stage}_ms=0.001"]) == 1
    said = capsys.readouterr().out
    assert re.search(rf"{stage}: p99 of \S+ ms, over its budget of 0.001 ms", said)
    assert said.count("over its budget") == 1


def test_enforcement_cannot_be_left_out_of_its_own_contract(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*paths, "--set", "enforcement.enabled=false"]) == 2
    assert "enforcement.enabled" in capsys.readouterr().err


def test_nothing_to_replay_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "m.onnx"), "--set", "replay=null"]) == 2
    assert "--replay" in capsys.readouterr().err


def test_no_ticks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--ticks", "0"])
    assert "expected a whole number over 0, got '0'" in capsys.readouterr().err


def test_frames_are_due_only_when_the_pipeline_asks_for_them() -> None:
    clock = BackToBackClock()
    arrived = threading.Event()

    def wait_for_a_frame() -> None:
        clock.wait_until(100)
        arrived.set()

    worker = threading.Thread(target=wait_for_a_frame)
    worker.start()
    clock.wait_until(99)
    assert not arrived.wait(0.05)
    clock.wait_until(100)
    assert arrived.wait(5)
    worker.join()
