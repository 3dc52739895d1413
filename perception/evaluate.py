"""Hold a run against its drive's ground truth: ``python -m perception.evaluate RUN``.

Prints detection recall and precision, the tracks' centre errors by range, and MOTA, IDF1 and HOTA; writes them to
``evaluation.json`` in the run's directory. Exit codes: 0 done, 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perception.accuracy import IOU, MATCH_M, DetectionAccuracy, TrackAccuracy
from perception.errors import DriveError, PerceptionError, ResultsError
from perception.ingest.open_drive import open_drive
from perception.ingest.poses import PoseBuffer
from perception.messages import CLASSES
from perception.output.files import write_whole
from perception.output.jsonl import DETECTIONS, TRACKS, read_detections, read_tracks
from perception.output.summary import SUMMARY, read_summary
from perception.truth import LEAST_HEIGHT_PX, LEAST_VISIBLE, RigView, TruthTimeline, TruthView

EVALUATION: Final = "evaluation.json"
RANGE_M: Final = 50.0
EXIT_REFUSED: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, evaluate, and turn what a user can mend into one line and an exit code."""
    parser = argparse.ArgumentParser("perception.evaluate", description="Hold a run against its drive's ground truth.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory that a run wrote")
    parser.add_argument("--drive", type=Path, help="the drive, if it is not where the run had it")
    parser.add_argument("--rig", type=Path, help="calibration, for a drive that holds none (default: the run's)")
    parser.add_argument("--range-m", type=_metres, default=RANGE_M, help="MOTA, IDF1, HOTA up to here (default: 50)")
    parser.add_argument("--match-m", type=_metres, default=MATCH_M, help="centres this close match (default: 2)")
    parser.add_argument("--classes", type=_classes, default=CLASSES, help="only these, such as car,truck,bus (all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args(argv)
    try:
        figures = evaluate(
            arguments.run,
            arguments.drive,
            arguments.rig,
            match_m=arguments.match_m,
            range_m=arguments.range_m,
            classes=arguments.classes,
        )
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        write_whole(arguments.run / EVALUATION, text.encode())
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    for fault in figures["faults"]:
        print(f"fault: {fault}", file=sys.stderr)
    if arguments.json:
        print(text, end="")
    else:
        print_figures(Console(), figures, arguments.run / EVALUATION)
    return 0


def _metres(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a length over 0, got {text}")
    return value


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in CLASSES:
            raise argparse.ArgumentTypeError(f"no class {name!r}; there are: {', '.join(CLASSES)}")
    return names


def evaluate(
    run: Path,
    drive_path: Path | None,
    rig_path: Path | None,
    *,
    match_m: float = MATCH_M,
    range_m: float = RANGE_M,
    classes: Sequence[str] = CLASSES,
) -> dict[str, Any]:
    """All figures of a run as plain values; raises a `PerceptionError` where something is missing or damaged.

    Objects of other than these `classes` are ignored: missing them is no error, and neither is finding them.
    """
    wanted = np.array([CLASSES.index(name) for name in classes], np.int32)
    drive_path, rig_path = _inputs(run, drive_path, rig_path)
    drive = open_drive(drive_path, rig_path)
    timeline = TruthTimeline(drive.truth())
    if len(timeline) == 0:
        raise DriveError(f"{drive_path}: holds no ground truth (/markers/annotations), so there is nothing to compare")

    cameras = RigView(drive.rig)
    tracks, detections = TrackAccuracy(match_m, range_m), DetectionAccuracy()
    poses = PoseBuffer(max_length=sys.maxsize)
    compared = []
    for published in read_tracks(run / TRACKS):
        if published.map_from_base is not None:
            poses.add(published.stamp_ns, published.map_from_base)
        truth = timeline.at(published.stamp_ns, published.map_from_base)
        compared.append(truth is not None)
        if truth is not None:
            positions = np.array([track.position for track in published.tracks]).reshape(-1, 3)
            covered = cameras.covered(positions, published.missing)
            covered &= np.isin([track.label for track in published.tracks], wanted)
            visible = cameras.visible(truth, published.missing) & np.isin(truth.labels, wanted)
            tracks.add(published, truth, visible, covered)
    images = 0
    for _, found in read_detections(run / DETECTIONS):
        truth = timeline.at(found.capture_ns, poses.at(found.capture_ns))
        if truth is not None and found.camera in drive.rig:
            boxes, visible = cameras.of_camera(found.camera, truth)
            seen = TruthView(boxes, visible & np.isin(truth.labels, wanted))
            detections.add(found, seen, truth, np.isin(found.labels, wanted))
            images += 1
    if not any(compared):
        raise ResultsError(
            f"{run}: none of its {len(compared)} ticks lies within 0.3 s of ground truth in {drive_path}"
        )
    return {
        "run": str(run),
        "drive": str(drive_path),
        "ticks": len(compared),
        "ticks_compared": sum(compared),
        "images_compared": images,
        "faults": list(drive.faults()),
        "rules": {
            "iou": IOU,
            "match_m": match_m,
            "range_m": range_m,
            "least_height_px": LEAST_HEIGHT_PX,
            "least_visible": LEAST_VISIBLE,
            "classes": list(classes),
        },
        "detection": detections.figures(),
        "tracks": tracks.figures(),
    }


def _inputs(run: Path, drive: Path | None, rig: Path | None) -> tuple[Path, Path | None]:
    """The drive and the rig file: what is given, else what the run's summary names."""
    if drive is not None:
        return drive, rig
    summary = read_summary(run)
    try:
        drive = Path(summary["drive"]["path"])
        rig = rig or (Path(summary["drive"]["rig"]) if summary["drive"]["rig"] else None)
    except (KeyError, TypeError):
        raise ResultsError(f"{run / SUMMARY}: does not name the run's drive; give it with --drive") from None
    if not drive.exists():
        raise DriveError(f"{drive}: the run's drive is no longer there; say where it is with --drive")
    return drive, rig


def print_figures(console: Console, figures: dict[str, Any], path: Path) -> None:
    """The figures as two tables."""
    rules, detection, tracks = figures["rules"], figures["detection"], figures["tracks"]
    compared = f"   {figures['ticks_compared']} of {figures['ticks']} ticks of {figures['run']}"
    console.print()
    console.print(Text.assemble(("Against ground truth", "bold"), (compared, "dim")))
    table = _table(
        "\nrange",
        "2-D\ntruth",
        "2-D\nfound",
        "3-D\ntruth",
        "3-D\nfound",
        "error\nmean m",
        "\np50 m",
        "\np90 m",
        "heading\np50",
    )
    for boxes, centres in zip(detection["by_range"], tracks["by_range"], strict=True):
        table.add_row(_range(boxes), *_recalls(boxes, centres), *_errors(centres))
    table.add_section()
    table.add_row("all", *_recalls(detection, tracks), *_errors(tracks["all"]), style="bold")
    console.print(table)
    which = "objects" if rules["classes"] == list(CLASSES) else f"of {', '.join(rules['classes'])}"
    judged = (
        f"   {tracks['tracking']['objects']} {which} to {rules['range_m']:g} m, centres within {rules['match_m']:g} m"
    )
    console.print(Text.assemble(("Tracking", "bold"), (judged, "dim")), soft_wrap=True)
    console.print(_tracking(tracks["tracking"]))
    right = f"precision {_share(detection['precision'])} at an IoU of {rules['iou']:g}, "
    right += f"class right {_share(detection['class_agreement'])}"
    console.print(Text.assemble(("Boxes", "bold"), f"    {right}"))
    console.print(Text.assemble(("Results", "bold"), f"  {path}"))


def _tracking(figures: dict[str, Any]) -> Table:
    shares = ("MOTA", "IDF1", "HOTA", "DetA", "AssA")
    counts = {"misses": "missed", "false_tracks": "false", "id_switches": "switches"}
    table = _table(*shares, *counts.values())
    if figures["truth"]:
        table.add_row(*(_share(figures[name]) for name in shares), *(str(figures[name]) for name in counts))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "\nrange" else "right", min_width=6, no_wrap=True)
    return table


def _range(row: dict[str, Any]) -> str:
    return f"over {row['from_m']:g} m" if row["to_m"] is None else f"{row['from_m']:g} to {row['to_m']:g} m"


def _recalls(boxes: dict[str, Any], centres: dict[str, Any]) -> list[str]:
    return [str(boxes["truth"]), _share(boxes["recall"]), str(centres["truth"]), _share(centres["recall"])]


def _errors(row: dict[str, Any]) -> list[str]:
    names = ("error_mean_m", "error_p50_m", "error_p90_m")
    if row["error_mean_m"] is None:
        return ["-"] * 4
    return [*(f"{row[name]:.2f}" for name in names), f"{row['heading_p50_deg']:.0f}°"]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    sys.exit(main())
