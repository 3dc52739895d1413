"""Budgets as a contract: whether a machine keeps those of a config, for ``python -m perception.bench --enforce``.

The drive is played at its own pace, over and over, with enforcement on and real-time priority, as on the vehicle, and
what could not be had of that is printed. So a thousand ticks at 10 Hz take a hundred seconds; but back to back would be
another machine: one whose caches are warm and whose cores never sleep. What counts as a breach is in
`perception.budget.breaches`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.text import Text

from perception import realtime
from perception.assembly import assemble_on_drive
from perception.budget import breaches
from perception.config import Config
from perception.errors import ConfigError
from perception.output.jsonl import TracksWriter
from perception.output.report import stages_table
from perception.output.summary import machine


def hold(chosen: Config, ticks: int, console: Console) -> dict[str, Any]:
    """Run so many ticks and hold them against the budget: what was measured, and the `breaches`, as plain values.

    Prints the account. Raises a `PerceptionError` for what cannot be run.
    """
    if not chosen.enforcement.enabled:
        raise ConfigError("enforcement.enabled: false, where --enforce is to run with it; leave it on")
    shown = console.is_terminal
    with ExitStack() as resources:
        parts = resources.enter_context(assemble_on_drive(chosen, ticks))
        tracks = TracksWriter(Path(resources.enter_context(tempfile.TemporaryDirectory())))
        resources.callback(tracks.close)
        problem = resources.enter_context(realtime.running_first(chosen.daemon.fifo_priority))
        if problem:
            console.print(Text(problem), soft_wrap=True)
        running = resources.enter_context(closing(parts.pipeline([tracks]).run(parts.source)))
        played = islice(running, ticks)
        # Refreshed between ticks: rich's own thread would take the interpreter in the middle of one.
        for _ in track(played, "", ticks, auto_refresh=False, console=console, transient=True, disable=not shown):
            pass
        faults = parts.faults()
    console.print(stages_table(parts.ledger))
    return {
        "machine": machine(),
        "drive": str(chosen.replay),
        "model": str(chosen.detector.model),
        "cameras": len(parts.rig),
        "threads": parts.backend.threads,
        "real_time_priority": None if problem else chosen.daemon.fifo_priority,
        "ticks": parts.ledger.ticks,
        "late": parts.ledger.late,
        "stages": [asdict(row) for row in (*parts.ledger.stages(), parts.ledger.end_to_end())],
        "faults": faults,
        "breaches": breaches(parts.ledger),
    }


def print_verdict(console: Console, result: Mapping[str, Any]) -> None:
    """Whether the budget was kept, and each breach in a line."""
    where = f"{result['ticks']} ticks of {result['cameras']} cameras on {result['machine']['cpu']}"
    verdict = Text("broken", "bold red") if result["breaches"] else Text("kept", "bold green")
    console.print(Text.assemble(("Budget", "bold"), "   ", verdict, f", {where}, {result['threads']} threads"))
    for breach in result["breaches"]:
        console.print(Text(f"  {breach}"), soft_wrap=True)
    for fault in result["faults"]:
        console.print(Text(f"  fault: {fault}"), soft_wrap=True)
