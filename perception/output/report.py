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
_NS_PER_MS: Final = 1_000_000


def print_report(
    console: Console, ledger: Ledger, *, stepped: bool, directory: Path, files: Iterable[Path], assumed: bool = False
) -> None:
    """Print the stages, the cameras, the ticks and where the results are; all times in milliseconds."""
    how = "stepped: decoding runs ahead and is not counted" if stepped else "in real time"
    how = "assumed, not measured: drawn from a profile" if assumed else how
    console.print()
    console.print(Text.assemble(("Latency per tick, ms", "bold"), (f"   {how}", "dim")))
    console.print(stages_table(ledger))
    console.print(Text("Each camera's own time, ms", "bold"))
    console.print(_cameras(ledger))
    for line in (
        _ticks(ledger, stepped=stepped),
        *_left_out(ledger, measured=not (stepped or assumed)),
        _results(directory, files),
    ):
        console.print(line, soft_wrap=True)


def stages_table(ledger: Ledger) -> Table:
    """A row per stage; the last column is where the slowest tick's time went, and adds up."""
    worst = ledger.worst()
    tick, times = worst[0] if worst else (None, None)
    spent = charge(times) if times else {}
    table = _table("\nstage")
    for heading in ("budget", "p50", "p99", "p99.9", "max", "overruns"):
        table.add_column(f"\n{heading}", justify="right", min_width=6)
    table.add_column("" if tick is None else f"slowest:\ntick {tick}", justify="right", min_width=6)
    for row in ledger.stages():
        table.add_row(*_cells(row), _ms(spent.get(row.name, math.nan) / _NS_PER_MS))
    table.add_section()
    end_to_end = times.end_to_end_ns if times else math.nan
    table.add_row(*_cells(ledger.end_to_end()), _ms(end_to_end / _NS_PER_MS), style="bold")
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
    table = _table("\ncamera")
    for _, heading in _CAMERA_STAGES:
        table.add_column(f"{heading}\n  p50   p99", justify="right", no_wrap=True)
    for camera, stages in ledger.cameras().items():
        table.add_row(camera, *(_pair(stages[stage]) for stage, _ in _CAMERA_STAGES))
    return table


def _table(first_column: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column(first_column, min_width=10)
    return table


def _pair(measured: Percentiles) -> str:
    return f"{_ms(measured.p50):>5} {_ms(measured.p99):>5}"


def _ms(value: float) -> str:
    """Five characters, up to a minute and a half."""
    if math.isnan(value):
        return "-"
    decimals = 2 if value < 99.995 else 1 if value < 999.95 else 0
    return f"{value:.{decimals}f}"


def _ticks(ledger: Ledger, *, stepped: bool) -> Text:
    line = Text.assemble(("Ticks", "bold"), f"    {ledger.ticks} published")
    if not stepped:
        line.append(f", {ledger.ticks - ledger.late} on time, ")
        line.append(f"{ledger.late} late{_by(ledger)}", "bold red" if ledger.late else "")
    line.append(", ")
    return line.append(
        f"{ledger.with_missing_camera} with a camera missing", "yellow" if ledger.with_missing_camera else ""
    )


def _by(ledger: Ledger) -> str:
    """By how much the latest tick missed the deadline, where one did."""
    row = ledger.end_to_end()
    if not ledger.late or row.budget_ms is None:
        return ""
    return f" by up to {_ms(row.measured.max - row.budget_ms)} ms"


def _left_out(ledger: Ledger, *, measured: bool) -> list[Text]:
    """What enforcement did, where it did anything: what was left out in time's want, and the levels of the ladder."""
    lines = []
    cut_off = {camera: count for camera, count in ledger.cut_off.items() if count}
    if ledger.dropped or cut_off:
        line = Text.assemble(("Cut", "bold"), f"      {ledger.dropped} ticks dropped")
        if cut_off:
            line.append("; cut off: " + ", ".join(f"{camera} {count}" for camera, count in cut_off.items()))
        lines.append(line)
    if set(ledger.levels) - {0}:
        uses = (f"{level}: {use.ticks}" for level, use in sorted(ledger.levels.items()))
        lines.append(Text.assemble(("Levels", "bold"), f"   ticks on each: {', '.join(uses)}"))
    looked = sum(stages["nms"].count for stages in ledger.cameras().values())
    if measured and ledger.dropped * len(ledger.cut_off) + sum(cut_off.values()) > looked:
        slow = "more frames came too late than were looked at; --pace stepped looks at all, however long it takes"
        lines.append(Text.assemble(("Slow", "bold yellow"), f"     {slow}"))
    return lines


def _results(directory: Path, files: Iterable[Path]) -> Text:
    written = ", ".join(f"{path.name} {_size(path)}" for path in files if path.is_file())
    return Text.assemble(("Results", "bold"), f"  {directory}/: {written}")


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
