"""A profile of this machine's costs, from the ticks of a run: for `perception.assume` on another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from perception.assume import CHANNEL, PROBABILITIES, CameraCosts, Profile, Quantiles
from perception.budget import Histogram
from perception.errors import ResultsError
from perception.messages import Tick
from perception.output.files import AtomicFile

_STAGES: Final = ("ingest", *CHANNEL)
_DECIMALS: Final = 4


class ProfileRecorder:
    """Measures what every tick cost; in constant memory, within 0.5 %. Raises `OutputError` where `path` cannot be.

    Ticks that were dropped and cameras that were skipped cost nothing and are not counted; what a camera that was cut
    off would have cost is not known, so a profile is best measured with `enforcement.enabled: false`.
    """

    def __init__(self, path: Path, cameras: Sequence[str]) -> None:
        self._file = AtomicFile(path)
        self._ticks = self._cut_off = 0
        self._tick = {stage: Histogram() for stage in ("fusion", "output")}
        self._all = {stage: Histogram() for stage in _STAGES}
        self._cameras = {camera: {stage: Histogram() for stage in _STAGES} for camera in cameras}

    def record(self, tick: Tick) -> None:
        """Take in one tick."""
        self._ticks += 1
        self._cut_off += len(tick.tracks.decision.late)
        decoded_ns = {span.camera: span.end_ns for span in tick.times.spans if span.stage == "ingest"}
        arrivals_ns = {frame.camera: frame.arrival_ns for frame in tick.frames.frames}
        for stage, camera, start_ns, end_ns in tick.times.spans:
            if not camera:
                self._tick[stage].add(end_ns - start_ns)
                continue
            if stage == "ingest":
                # What was decoded ahead, as in stepped replay, did not wait for its arrival.
                self._add(camera, stage, end_ns - min(arrivals_ns[camera], start_ns))
                continue
            if stage == "preprocess":
                # In stepped replay the frame was decoded before it arrived, and is handed over when it does.
                self._add(camera, "queue", max(start_ns - max(decoded_ns[camera], arrivals_ns[camera]), 0))
            self._add(camera, stage, end_ns - start_ns)

    def close(self) -> None:
        """Nothing: it is for `write` to decide what becomes of it."""

    def write(self, machine: str) -> None:
        """Write the profile as YAML; raises `ResultsError` when nothing was measured, and `OutputError`."""
        if not all(histogram.count for histogram in (*self._all.values(), *self._tick.values())):
            self._file.discard()
            raise ResultsError(
                f"{self._file.path}: not written: no tick went through all stages in this run, so there is nothing to "
                "tell"
            )
        about = f"measured over {self._ticks} ticks of a run"
        if self._cut_off:
            about += f"; {self._cut_off} channels were cut off, and what they would have cost is not in it"
        profile = Profile(
            about=about,
            machine=" ".join(machine.split()),
            ticks=self._ticks,
            default=_costs(self._all),
            cameras={name: _costs(measured) for name, measured in self._cameras.items() if _complete(measured)},
            fusion_ms=_quantiles(self._tick["fusion"]),
            output_ms=_quantiles(self._tick["output"]),
        )
        text = yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
        self._file.write(f"# {profile.about}, on {profile.machine}\n{text}".encode())
        self._file.close()

    def _add(self, camera: str, stage: str, duration_ns: int) -> None:
        self._cameras[camera][stage].add(duration_ns)
        self._all[stage].add(duration_ns)


def _complete(measured: dict[str, Histogram]) -> bool:
    return all(histogram.count for histogram in measured.values())


def _costs(measured: dict[str, Histogram]) -> CameraCosts:
    return CameraCosts(**{f"{stage}_ms": _quantiles(histogram) for stage, histogram in measured.items()})


def _quantiles(measured: Histogram) -> Quantiles:
    zero, p50, p90, p99, p999, largest = (round(value, _DECIMALS) for value in measured.quantiles(*PROBABILITIES))
    return zero, p50, p90, p99, p999, largest
