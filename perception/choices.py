"""What a run settled on, and why: printed once before its first tick, and kept in its summary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from perception import again
from perception.assembly import Assembly
from perception.backends import Device
from perception.config import Config


def choices(chosen: Config, config_file: Path, device: Device, parts: Assembly[Any]) -> dict[str, Any]:
    """By name, a line or several; `config_file` is where `chosen` comes from."""
    cameras = ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in parts.rig.values())
    pace = "every frame, stepped" if chosen.pace == "stepped" else "at its own pace"
    settled: dict[str, Any] = {"config": _near(config_file)}
    if parts.assumption is not None:
        profile, pace = parts.assumption.profile, "in virtual time"
        settled["assumed"] = [_near(chosen.assume.profile), profile.about, f"machine: {profile.machine}"]
    if not parts.clock.stepped:
        settled["ladder"] = [f"{level}: {rung.name}" for level, rung in enumerate(parts.enforcement.rungs)]
    if chosen.decisions is not None:
        settled["decisions"] = [_near(chosen.decisions), *again.changes(chosen.decisions, chosen)]
    return settled | {
        "device": f"{device.name}: {device.reason}; {parts.backend.threads} threads",
        "detector": [_near(chosen.detector.model), *parts.backend.notes],
        **_drive_or_live(chosen, pace),
        "cameras": cameras,
        "deadline": f"{chosen.budget.end_to_end_ms:g} ms from the first frame's arrival to publication",
    }


def print_choices(console: Console, settled: Mapping[str, Any]) -> None:
    """As a table of names and lines."""
    for name, value in settled.items():
        lines = value if isinstance(value, list) else [value]
        for title, line in zip([name, *[""] * len(lines)], lines, strict=False):
            console.print(Text.assemble((f"{title:<9}", "bold"), " ", line), soft_wrap=True, highlight=False)


def _drive_or_live(chosen: Config, pace: str) -> dict[str, str]:
    if chosen.replay is None:
        return {"live": ", ".join(f"{name} by {camera.source}" for name, camera in chosen.cameras.items())}
    times = f", {chosen.loop} times" if chosen.loop > 1 else ""
    instead = ", in place of the live cameras" if chosen.cameras else ""
    return {"drive": f"{_near(chosen.replay)}, {pace}{times}{instead}"}


def _near(path: Path | None) -> str:
    """A path as one would type it from here."""
    if path is None:
        return "none"
    absolute, here = os.path.abspath(path), f"{os.getcwd()}{os.sep}"  # noqa: PTH100, PTH109 (links stay links)
    return absolute.removeprefix(here)
