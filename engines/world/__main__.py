"""Make a drive: ``python -m engines.world --seed 7 --out drives/mine.mcap --seconds 20 --scenario night``.

Exit codes: 0 done, 1 interrupted (nothing written), 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.world import drive
from engines.world.scenario import SCENARIOS
from engines.world.world import World
from perception.errors import ConfigError, OutputError, PerceptionError

EXIT_INTERRUPTED: Final = 1
EXIT_REFUSED: Final = 2
_LONGEST_S: Final = 600.0
_FASTEST_HZ: Final = 100.0
_SEEDS: Final = 2**32


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, make the drive, and turn what a user can mend into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.list:
            for scenario in SCENARIOS.values():
                print(f"{scenario.name:<12} {scenario.description}")
            return 0
        return _make(arguments)
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("engines.world", description="Make a synthetic drive with ground truth.")
    add = parser.add_argument
    add("--scenario", default="city", metavar="NAME", help="what kind of drive: see --list (default: %(default)s)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="decides the town, the traffic, the noise (default: %(default)s)",
    )
    add("--seconds", type=float, default=20.0, metavar="S", help="how long it is (default: %(default)s)")
    add("--rate-hz", type=float, default=drive.RATE_HZ, metavar="HZ", help="ticks a second (default: %(default)s)")
    add("--jpeg-quality", type=int, default=drive.QUALITY, metavar="Q", help="1 to 100 (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="the .mcap file to write")
    add("--force", action="store_true", help="replace the file if it exists")
    add("--list", action="store_true", help="list the scenarios, and stop")
    return parser


def _make(arguments: argparse.Namespace) -> int:
    path: Path | None = arguments.out
    if path is None:
        raise ConfigError("--out is missing: name the .mcap file to write, such as --out drives/mine.mcap")
    if path.suffix != ".mcap":
        raise ConfigError(f"--out {path}: a drive is an .mcap file")
    if not 0 < arguments.seconds <= _LONGEST_S:
        raise ConfigError(f"--seconds {arguments.seconds:g}: expected more than 0, and at most {_LONGEST_S:g}")
    if not 0 < arguments.rate_hz <= _FASTEST_HZ:
        raise ConfigError(f"--rate-hz {arguments.rate_hz:g}: expected more than 0, and at most {_FASTEST_HZ:g}")
    if not 0 <= arguments.seed < _SEEDS:
        raise ConfigError(f"--seed {arguments.seed}: expected 0 to {_SEEDS - 1}")
    if not 1 <= arguments.jpeg_quality <= 100:
        raise ConfigError(f"--jpeg-quality {arguments.jpeg_quality}: expected 1 to 100")
    if path.exists() and not arguments.force:
        raise OutputError(f"{path}: exists; --force replaces it")
    console = Console(stderr=True)
    count = drive.ticks(arguments.seconds, arguments.rate_hz)
    world = World(arguments.seed, arguments.scenario)
    columns = (
        TextColumn(f"{world.scenario.name} {arguments.seed}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=count)
        drive.record(
            world,
            path,
            arguments.seconds,
            rate_hz=arguments.rate_hz,
            quality=arguments.jpeg_quality,
            progress=lambda done: progress.update(task, completed=done),
        )
    print(f"{path}: {count} ticks, {len(world.rig)} cameras, {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
