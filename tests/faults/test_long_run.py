"""That the command for the long run measures what it says; its figures are for a quiet machine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from perception import config
from tests.drives import write_drive
from tests.faults.long_run import run
from tests.faults.vehicle import settings


def test_a_short_run_gives_all_figures(model: Path, tmp_path: Path) -> None:
    cameras = ("CAM_FRONT", "CAM_LEFT")
    drive = write_drive(tmp_path / "d.mcap", cameras=cameras, image_size=(160, 96), ticks=20, rate_hz=20.0).path
    tree = settings(model, 1000.0) | {"replay": str(drive), "rig": None, "cameras": {}, "output": {}}
    chosen = config.from_tree(tree, tmp_path / "config.yaml")
    figures = {figure.name: figure for figure in run(chosen, 80, Console(quiet=True), stall=True, load=False)}
    assert figures["late ticks"].measured == "0 of 80"
    assert figures["late ticks"].kept
    assert figures["enforcement, of a tick"].measured.endswith("µs)")
    assert "(0 stalls)" not in figures["cameras left out beside one that stalls"].measured
    assert {"memory, end against start", "file descriptors, at most", "threads, at most"} < figures.keys()
