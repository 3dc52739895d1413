"""An assumed machine against the ideal one, which sees every frame: how right their tracks are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perception.errors import BackendError, DriveError, ResultsError
from perception.evaluate import RANGE_M, evaluate

_SHARES: Final = ("recall", "MOTA", "IDF1", "HOTA")
_METRES: Final = ("error_mean_m", "error_p90_m")
_COUNTS: Final = ("misses", "false_tracks", "id_switches")


def compare(assumed: Path, ideal: Path, drive: Path, rig: Path | None) -> dict[str, Any]:
    """Hold two runs of one drive against its ground truth; plain values, for the summary.

    Where that cannot be done, `why_not` says why: the drive has no ground truth, or TrackEval is not installed.
    """
    try:
        return {
            "range_m": RANGE_M,
            "assumed": _accuracy(evaluate(assumed, drive, rig)["tracks"]),
            "ideal": _accuracy(evaluate(ideal, drive, rig)["tracks"]),
        }
    except (BackendError, DriveError, ResultsError) as error:
        return {"why_not": str(error)}


def _accuracy(tracks: Mapping[str, Any]) -> dict[str, float | None]:
    """The few figures that tell most; recall and errors over all ranges, the rest as MOTA is judged."""
    figures = {"recall": tracks["recall"], **tracks["all"], **tracks["tracking"]}
    return {name: figures.get(name) for name in (*_SHARES, *_METRES, *_COUNTS)}


def print_comparison(console: Console, compared: Mapping[str, Any]) -> None:
    """The figures side by side."""
    console.print(Text.assemble(("Tracks against ground truth", "bold")))
    if "why_not" in compared:
        console.print(Text.assemble("not compared: ", compared["why_not"]), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("", min_width=14)
    for heading in ("assumed", "ideal"):
        table.add_column(heading, justify="right", min_width=8)
    for name in (*_SHARES, *_METRES, *_COUNTS):
        table.add_row(name.replace("_", " "), *(_cell(name, compared[run][name]) for run in ("assumed", "ideal")))
    console.print(table)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if name in _SHARES else f"{value:.2f}" if name in _METRES else f"{value:.0f}"
