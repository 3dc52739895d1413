"""A run once more: the same frames, drops, cut-offs and levels, on any machine, byte for byte.

A vehicle's bad minute, at the desk. What was decided is in the run's ``decisions.jsonl``, with the captures that each
tick was made of; time plays no part in it any more, so the drive is replayed stepped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

from perception import config, ladder
from perception.config import Config
from perception.errors import ConfigError, ResultsError
from perception.governor import Recorded
from perception.hashing import sha256
from perception.ingest.drive import Packet
from perception.ingest.recorded_groups import RecordedGroups
from perception.messages import Rig
from perception.output.decisions import DECISIONS, Decided, read_decisions
from perception.output.flight import EVENT
from perception.output.jsonl import DETECTIONS, TRACKS
from perception.output.recording import RECORDING
from perception.output.summary import SUMMARY, read_record

AGAIN: Final = "again"
_SHAPING: Final = ("device", "preprocess", "detector", "nms", "fusion", "enforcement.ladder")


class Again(NamedTuple):
    """What makes a replay follow a run: who decides, and which frames make a tick."""

    enforcement: Recorded
    grouping: RecordedGroups[Packet]


class _Then(NamedTuple):
    """What a run, or an event of the flight recorder, was made with, as `file` says."""

    file: Path
    config: dict[str, Any] | None
    model: dict[str, Any] | None
    inputs: list[tuple[str, Any]]


def settle(run: Path, name: str | None, overrides: Sequence[tuple[str, Any]]) -> tuple[Config, Path]:
    """The config for having a run again, and where it comes from: the run's own, or the one that is named.

    Stepped; the results go into ``again`` beside the run's, if nothing else is said. An event of the flight recorder
    is its own drive. Raises `ConfigError` or `ResultsError`.
    """
    if not run.is_dir():
        raise ResultsError(f"{run}: no such directory; --decisions takes the directory that a run wrote")
    usual: list[tuple[str, Any]] = [("pace", "stepped"), ("output.directory", str(run / AGAIN))]
    usual += [("assume.profile", None), ("output.profile", None)]  # its costs, assumed or measured, play no part now
    usual.append(("flight.enabled", False))
    then = _then(run)
    if then is not None:
        usual += then.inputs
    elif (run / RECORDING).is_file():
        usual.append(("replay", str(run / RECORDING)))
    if name is not None:
        return config.load(name, [*usual, *overrides]), config.find(name)
    if then is None or then.config is None:
        raise ResultsError(f"{then.file if then else run}: holds no config; name that of the run with --config")
    return config.from_tree(then.config, then.file, [*usual, *overrides]), then.file


def _then(run: Path) -> _Then | None:
    """Drive, calibration and model are paths that hold wherever they are read from."""
    if (run / SUMMARY).is_file():
        file = run / SUMMARY
        record = read_record(file)
        model, drive = _dict(_at(record, "chosen.model")), _dict(record.get("drive"))
        inputs = [] if drive is None else [("replay", drive.get("path")), ("rig", drive.get("rig"))]
    elif (run / EVENT).is_file():
        file = run / EVENT
        record = read_record(file)
        model = _dict(record.get("model"))
        inputs = [("replay", str(run / RECORDING)), ("rig", None)]  # the recording holds the calibration
    else:
        return None
    if model is not None:
        inputs.append(("detector.model", model.get("path")))
    return _Then(file, _dict(record.get("config")), model, inputs)


def _dict(value: Any) -> dict[str, Any] | None:
    """What was written as an object; None for anything else: the file is not trusted."""
    return value if isinstance(value, dict) else None


def follow(run: Path, chosen: Config, rig: Rig) -> Again:
    """What was decided about the ticks of a run; raises `ResultsError` or `ConfigError`."""
    path = run / DECISIONS
    decided = list(read_decisions(path))
    rungs = ladder.build(chosen, rig).rungs
    _check(path, decided, rig, len(rungs))
    return Again(Recorded(rungs, rig, {d.tick: d.decision for d in decided}), _grouping(decided, chosen.loop))


def grouping(run: Path, loops: int) -> RecordedGroups[Packet]:
    """Which frames made a tick of a run that was followed; raises `ResultsError`."""
    return _grouping(read_decisions(run / DECISIONS), loops)


def _grouping(decided: Iterable[Decided], loops: int) -> RecordedGroups[Packet]:
    return RecordedGroups(((tick.tick, tick.captures_ns) for tick in decided), loops)


def _check(path: Path, decided: Sequence[Decided], rig: Rig, levels: int) -> None:
    if not decided:
        raise ResultsError(f"{path}: no ticks in it")
    if any(later.tick <= tick.tick for tick, later in pairwise(decided)):
        raise ResultsError(f"{path}: its ticks do not ascend; it is damaged")
    for tick in decided:
        named = (*tick.captures_ns, *tick.decision.late, *tick.decision.skipped)
        strange = [camera for camera in named if camera not in rig]
        if strange:
            raise ConfigError(f"{path}: tick {tick.tick}: no camera {strange[0]!r} in this drive: {', '.join(rig)}")
        if not 0 <= tick.decision.level < levels:
            raise ConfigError(
                f"{path}: tick {tick.tick} was on level {tick.decision.level}, but enforcement.ladder goes to level "
                f"{levels - 1} here; replay it with the config of that run"
            )


def changes(run: Path, chosen: Config) -> list[str]:
    """What shapes results and is not as it was in the run, a line each: then it will not come out the same."""
    then = _then(run)
    if then is None or then.config is None:
        return []
    now = chosen.model_dump(mode="json")
    lines = [line for key in _SHAPING for line in _changes(key, _at(then.config, key), _at(now, key))]
    file = chosen.detector.model
    if then.model is not None and file and then.model.get("sha256") != sha256(file):
        lines.append(f"detector.model: {file} is not the file that it was then")
    return lines


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _changes(key: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in now:
            yield from _changes(f"{key}.{name}", before.get(name), now[name])
    elif before != now and key != "detector.model":
        yield f"{key}: it was {before}, and is {now}"


def same(run: Path, directory: Path) -> str:
    """Whether a run came out the same, in a line."""
    if not (run / SUMMARY).is_file():
        return f"{run} is an event: its frames and decisions, and no results of its own to compare with"
    for name in (TRACKS, DETECTIONS):
        try:
            with (run / name).open("rb") as then, (directory / name).open("rb") as now:
                lines = enumerate(zip_longest(then, now), start=1)
                different = next((number for number, (before, after) in lines if before != after), None)
        except OSError as error:
            return f"not compared: {error.filename}: {error.strerror}"
        if different is not None:
            return f"{name} is not the same as in {run}, from line {different} on"
    return f"{TRACKS} and {DETECTIONS} are the same, byte for byte, as in {run}"
