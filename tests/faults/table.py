"""What was seen of a fault, as the cells of a table."""

from __future__ import annotations

import re
from typing import Final

from tests.faults.vehicle import Window

HEAD: Final = ("fault", "published meanwhile", "logged", "recovers by itself")
DEADLINE: Final = "PERCEPTION_FAULTS_DEADLINE_MS"
_PRIORITY: Final = re.compile("^(warning|error): ")
_OF_THE_RUN: Final = re.compile(r"\d{9,}|(?<=127\.0\.0\.1:)\d+|/\S+(?=/\w+\.\w+: )")  # stamps, ports, directories
_AT_ONCE_S: Final = 0.5


def cells(seen: Window | None, *, published: str = "", logged: str = "", recovers: str = "") -> list[str]:
    """The three cells beside a fault's name, from what was seen where nothing else is given."""
    if seen is None:
        return [published, logged, recovers]
    return [published or _published(seen), logged or _logged(seen), recovers or _recovers(seen)]


def markdown(rows: list[list[str]]) -> str:
    """The table in Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _published(seen: Window) -> str:
    count = len(seen.sets)
    parts = [f"{count - len(seen.gaps)} of {count} ticks" if seen.gaps else f"all {count} ticks"]
    parts.append("all by the deadline" if seen.on_time == count else f"{seen.on_time} by the deadline")
    for fate, words in (("missing", "without"), ("late", "cut off:"), ("skipped", "left out:")):
        parts += [f"{words} {camera} in {ticks}" for camera, ticks in sorted(seen.cameras(fate).items())]
    dropped = sum(tracks["decision"]["dropped"] for tracks in seen.sets)
    parts += [f"predictions only in {dropped}"] if dropped else []
    level = max((tracks["decision"]["level"] for tracks in seen.sets), default=0)
    return ", ".join([*parts, f"ladder down to level {level}"] if level else parts)


def _logged(seen: Window) -> str:
    lines = [_OF_THE_RUN.sub("…", line.partition(" (and ")[0]) for line in seen.looked_for]
    return "<br>".join(f"`{_PRIORITY.sub('', line)}`" for line in lines) or "nothing"


def _recovers(seen: Window) -> str:
    if seen.recovered_s is None:
        return "no"
    return "yes, at once" if seen.recovered_s < _AT_ONCE_S else f"yes, after {seen.recovered_s:.0f} s"
