"""``summary.json``: what ran, where, on what, and what it cost. Strict JSON: what was not measured is null."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from perception import __version__
from perception.budget import Ledger, LedgerRow, Percentiles
from perception.config import Config
from perception.errors import ResultsError
from perception.governor import Enforcement
from perception.hashing import fingerprint
from perception.messages import TickTimes
from perception.output.files import write_whole

SUMMARY: Final = "summary.json"
_PACKAGES: Final = ("numpy", "opencv-python", "openvino", "onnxruntime", "av", "mcap", "foxglove-schemas-protobuf")
_MAX_BYTES: Final = 64_000_000


def write_summary(
    directory: Path,
    *,
    config: Config,
    chosen: Mapping[str, Any],
    cameras: Sequence[str],
    ledger: Ledger,
    faults: Sequence[str],
    files: Iterable[Path],
    wall_s: float,
    enforcement: Enforcement | None = None,
    assumed: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``summary.json`` and return its path; raises `OutputError`.

    `chosen` is what the run settled on where the config left it open (device and why, runtime, threads), as plain JSON
    values. `files` are what the run wrote; `wall_s` is how long its ticks took in all, and
    `enforcement` who decided about them. `assumed` is about the machine whose costs were assumed, if any: then no time
    but `wall_s` was measured.
    """
    summary = {
        "versions": _versions(),
        "machine": machine(),
        "chosen": {**chosen, "model": fingerprint(config.detector.model), "cameras": list(cameras)},
        "drive": _drive(config.replay, config.rig),
        "pace": config.pace,
        "deadline_ms": config.budget.end_to_end_ms,
        "wall_s": round(wall_s, 3),
        "ticks": {
            "published": ledger.ticks,
            "on_time": None if config.pace == "stepped" else ledger.ticks - ledger.late,
            "late": None if config.pace == "stepped" else ledger.late,
            "with_missing_camera": ledger.with_missing_camera,
        },
        "enforcement": None if enforcement is None else _enforcement(enforcement, ledger),
        "end_to_end": _row(ledger.end_to_end()),
        "data_age": _row(ledger.data_age()),
        "stages": {row.name: _row(row) for row in ledger.stages()},
        "cameras": {
            camera: {stage: _percentiles(measured) for stage, measured in stages.items()}
            for camera, stages in ledger.cameras().items()
        },
        "worst": [_timeline(tick, times) for tick, times in ledger.worst()],
        "faults": list(faults),
        "files": {path.name: path.stat().st_size for path in files if path.is_file()},
        "config": config.model_dump(mode="json"),
        **({} if assumed is None else {"assumed": assumed}),
    }
    path = directory / SUMMARY
    write_whole(path, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return path


def read_summary(directory: Path) -> dict[str, Any]:
    """Read a run's ``summary.json``; raises `ResultsError`."""
    return read_record(directory / SUMMARY)


def read_record(path: Path) -> dict[str, Any]:
    """Read what was written about a run as one JSON object; raises `ResultsError`."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(_MAX_BYTES))
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be read: {error.strerror}; is {path.parent} the directory of a run?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: damaged: {error}; run the drive again") from None
    if not isinstance(record, dict):
        raise ResultsError(f"{path}: damaged: expected an object, got {type(record).__name__}; run the drive again")
    return record


def machine() -> dict[str, Any]:
    """The machine, and how busy it is: what a latency must be read with."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _cpu() -> str:
    """The board on a Jetson, the processor elsewhere."""
    board = Path("/proc/device-tree/model")
    if board.is_file():
        return board.read_text(errors="replace").strip("\0\n ")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    installed = {name: _version(name) for name in _PACKAGES}
    versions = {"perception": __version__, "python": platform.python_version()}
    return versions | {name: version for name, version in installed.items() if version}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _drive(path: Path | None, rig: Path | None) -> dict[str, Any] | None:
    """As paths that hold wherever they are read from."""
    if path is None:
        return None
    size = path.stat().st_size if path.is_file() else None
    return {"path": str(path.resolve()), "bytes": size, "rig": None if rig is None else str(rig.resolve())}


def _enforcement(enforcement: Enforcement, ledger: Ledger) -> dict[str, Any]:
    """What was left out, and the way on the ladder; of that, the steps that are remembered."""
    levels = [
        {
            "level": level,
            "name": enforcement.rungs[level].name,
            "ticks": use.ticks,
            "seconds": round(use.duration_ns * 1e-9, 3),
        }
        for level, use in sorted(ledger.levels.items())
    ]
    return {
        "dropped": ledger.dropped,
        "levels": levels,
        "steps": [{"tick": s.tick, "from": s.before, "to": s.after, "reason": s.reason} for s in enforcement.steps],
        "cut_off": ledger.cut_off,
        "skipped": ledger.skipped,
    }


def _row(row: LedgerRow) -> dict[str, Any]:
    return {"budget_ms": row.budget_ms, "overruns": row.overruns, **_percentiles(row.measured)}


def _percentiles(measured: Percentiles) -> dict[str, Any]:
    values = {
        "p50_ms": measured.p50,
        "p99_ms": measured.p99,
        "p999_ms": measured.p999,
        "max_ms": measured.max,
    }
    return {"count": measured.count} | {
        name: None if math.isnan(value) else round(value, 4) for name, value in values.items()
    }


def _timeline(tick: int, times: TickTimes) -> dict[str, Any]:
    """A tick's spans in milliseconds since its first arrival; decoding ahead of it has negative times."""

    def since_arrival(at_ns: int) -> float:
        return round((at_ns - times.arrival_ns) / 1e6, 4)

    spans = [
        {"stage": s.stage, "camera": s.camera, "start_ms": since_arrival(s.start_ns), "end_ms": since_arrival(s.end_ns)}
        for s in times.spans
    ]
    return {"tick": tick, "end_to_end_ms": since_arrival(times.published_ns), "late": times.late, "spans": spans}
