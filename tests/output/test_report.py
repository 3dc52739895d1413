from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from perception.budget import Ledger
from perception.messages import Decision
from perception.output.report import print_report
from tests.output.samples import BUDGET, LEFT_OUT, make_ledger, make_rig, make_tick


def report(ledger: Ledger, directory: Path, *, stepped: bool = False, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    print_report(console, ledger, stepped=stepped, directory=directory, files=sorted(directory.iterdir()))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if re.match(rf" ?{name}\b", line)]
    return line.split()[len(name.split()) :]


@pytest.fixture(name="ledger")
def _ledger() -> Ledger:
    rig = make_rig()
    return make_ledger([make_tick(0, rig), make_tick(1, rig, late=True), make_tick(2, rig, missing=("CAM_LEFT",))], rig)


def test_a_line_per_stage_and_the_whole_with_the_deadline(ledger: Ledger, tmp_path: Path) -> None:
    text = report(ledger, tmp_path)
    assert row(text, "fusion") == ["3.00", "1.00", "1.00", "1.00", "1.00", "0", "1.00"]
    budget, *percentiles, largest, overruns, slowest = row(text, "end to end")
    assert (budget, largest, overruns, slowest) == ("20.00", "30.00", "1", "30.00")
    assert [float(value) for value in percentiles] == pytest.approx([6, 30, 30], rel=0.005)
    assert len(row(text, "waiting")) == 5  # it has no budget, so no overruns
    assert "tick 1" in text


def test_the_slowest_tick_adds_up(ledger: Ledger, tmp_path: Path) -> None:
    text = report(ledger, tmp_path)
    stages = ("ingest", "preprocess", "detect", "nms", "fusion", "output", "waiting")
    assert sum(float(row(text, stage)[-1]) for stage in stages) == float(row(text, "end to end")[-1])


def test_ticks_are_counted(ledger: Ledger, tmp_path: Path) -> None:
    assert "3 published, 2 on time, 1 late by up to 10.00 ms, 1 with a camera missing" in report(ledger, tmp_path)


def test_what_was_left_out_is_told_where_there_was_anything(ledger: Ledger, tmp_path: Path) -> None:
    assert not re.search("Cut|Levels", report(ledger, tmp_path))
    rig = make_rig()
    disturbed = make_ledger([make_tick(i, rig, decision=d) for i, d in enumerate(LEFT_OUT)], rig)
    text = report(disturbed, tmp_path)
    assert "1 ticks dropped; cut off: CAM_FRONT 1, CAM_LEFT 1" in text
    assert "ticks on each: 0: 2, 1: 3" in text


def test_who_is_far_too_slow_is_told_how_to_see_all(ledger: Ledger, tmp_path: Path) -> None:
    assert "--pace stepped" not in report(ledger, tmp_path)
    rig = make_rig()
    cut = make_tick(0, rig, decision=Decision(late=tuple(rig)))
    without = tuple(span for span in cut.times.spans if span.stage != "nms")
    cut = replace(cut, times=replace(cut.times, spans=without))
    assert "--pace stepped" not in report(make_ledger([cut, make_tick(1, rig)], rig), tmp_path)
    assert "--pace stepped" in report(make_ledger([cut, cut, make_tick(2, rig)], rig), tmp_path)


def test_stepped_replay_says_what_is_not_counted(ledger: Ledger, tmp_path: Path) -> None:
    text = report(ledger, tmp_path, stepped=True)
    assert "stepped: decoding runs ahead and is not counted" in text
    assert "3 published, 1 with a camera missing" in text


def test_each_camera_has_its_own_line(ledger: Ledger, tmp_path: Path) -> None:
    assert row(report(ledger, tmp_path), "CAM_LEFT") == ["1.00", "1.00"] * 4


def test_results_are_named_with_their_sizes(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(bytes(999))
    (tmp_path / "b.mcap").write_bytes(bytes(1_234_000))
    text = " ".join(report(ledger, tmp_path, width=300).split())
    assert f"{tmp_path}/: a.json 999 B, b.mcap 1.23 MB" in text


def test_eighty_columns_are_enough_for_slow_cameras_with_long_names(tmp_path: Path) -> None:
    rig = make_rig("CAM_FRONT_RIGHT", "CAM_BACK_LEFT_TRAILER")
    tick = make_tick(0, rig)
    spans = tuple(span._replace(end_ns=span.start_ns + 9_999_000_000) for span in tick.times.spans)
    ledger = make_ledger([replace(tick, times=replace(tick.times, spans=spans))], rig)
    text = report(ledger, tmp_path, width=80)
    assert "…" not in text
    for camera in rig:
        assert len(row(text, camera)) == 8


def test_a_run_without_ticks_has_a_report(tmp_path: Path) -> None:
    text = report(Ledger(BUDGET, ["CAM_FRONT"]), tmp_path)
    assert "0 published" in text
    assert row(text, "end to end") == ["20.00", "-", "-", "-", "-", "0", "-"]
