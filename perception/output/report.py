"""The account of a run, on the console."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perception.budget import Ledger, LedgerRow, Percentiles, charge

_CAMERA_STAGES: Final = (("ingest", "decode"), ("preprocess", "preprocess"), ("detect", "detect"), ("nms", "nms"))
_WORTH_NAMING_NS: Final = 50_000


def print_report(console: Console, ledger: Ledger, *, stepped: bool, directory: Path, files: Iterable[Path]) -> None:
    """Print the stages, the cameras, the ticks and where the results are; all times in milliseconds."""
    console.print()
    console.print(_stages(ledger, stepped=stepped))
    console.print()
    console.print(_cameras(ledger))
    console.print()
    console.print(_ticks(ledger, stepped=stepped), _worst(ledger), _results(directory, files), sep="\n", soft_wrap=True)


def _stages(ledger: Ledger, *, stepped: bool) -> Table:
    how = "stepped: decoding runs ahead and is not counted, nothing is late" if stepped else "real time"
    table = _table(f"Latency per tick, ms  ({how})")
    table.add_column("stage")
    for heading in ("budget", "p50", "p99", "p99.9", "max", "overruns"):
        table.add_column(heading, justify="right", min_width=8)
    for row in ledger.stages():
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(ledger.end_to_end()), style="bold")
    table.add_row(*_cells(ledger.data_age()))
    return table


def _cells(row: LedgerRow) -> list[Text]:
    measured = row.measured
    budget = math.inf if row.budget_ms is None else row.budget_ms
    times = (measured.p50, measured.p99, measured.p999, measured.max)
    overruns = "" if row.budget_ms is None else str(row.overruns)
    return [
        Text(row.name),
        Text("" if row.budget_ms is None else f"{row.budget_ms:.2f}", "dim"),
        *(Text(_ms(time), "yellow" if time > budget else "") for time in times),
        Text(overruns, "bold red" if row.overruns else "green"),
    ]


def _cameras(ledger: Ledger) -> Table:
    table = _table("Each camera's own time, ms  (p50 / p99)")
    table.add_column("camera")
    for _, heading in _CAMERA_STAGES:
        table.add_column(heading, justify="right", min_width=13)
    for camera, stages in ledger.cameras().items():
        table.add_row(camera, *(_pair(stages[stage]) for stage, _ in _CAMERA_STAGES))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _pair(measured: Percentiles) -> str:
    return f"{_ms(measured.p50)} / {_ms(measured.p99):>6}"


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _ticks(ledger: Ledger, *, stepped: bool) -> Text:
    line = Text(f"ticks    {ledger.ticks} published")
    if not stepped:
        line.append(f", {ledger.ticks - ledger.late} on time")
        line.append(f", {ledger.late} late", "bold red" if ledger.late else "")
    return line.append(
        f", {ledger.with_missing_camera} with a camera missing", "yellow" if ledger.with_missing_camera else ""
    )


def _worst(ledger: Ledger) -> Text:
    worst = ledger.worst()
    if not worst:
        return Text("worst    none: no tick was published")
    tick, times = worst[0]
    parts = [f"{stage} {spent / 1e6:.2f}" for stage, spent in charge(times).items() if spent >= _WORTH_NAMING_NS]
    return Text(f"worst    tick {tick}: {times.end_to_end_ns / 1e6:.2f} ms = {' + '.join(parts)}")


def _results(directory: Path, files: Iterable[Path]) -> Text:
    line = Text("results  ").append(f"{directory}/", "bold")
    return line.append(" " + ", ".join(f"{path.name} {_size(path)}" for path in files if path.is_file()))


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
