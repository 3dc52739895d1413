"""``trace.json``: the timeline of every tick, for https://ui.perfetto.dev or chrome://tracing.

One row per camera for what its channel did, one for fusion and output with the deadlines on it, a counter for the level
of the ladder. Ticks and decoding have
rows of their own, made by the viewer: they may overlap, and slices of one row may not. The format is the JSON array of
the Trace Event Format, whose closing bracket is optional: a trace that was cut off still opens.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from perception.messages import Rig, StageSpan, Tick
from perception.output.files import AtomicFile

TRACE: Final = "trace.json"
_PROCESS: Final = 1
_FUSION_ROW: Final = 1

Event = dict[str, Any]


class TraceWriter:
    """Records every tick's spans to ``trace.json``; microseconds since the first arrival."""

    def __init__(self, directory: Path, rig: Rig) -> None:
        self._rows = {name: row for row, name in enumerate(rig, start=_FUSION_ROW + 1)}
        self._origin_ns: int | None = None
        self._file = AtomicFile(directory / TRACE)
        names = {_FUSION_ROW: "fusion, output"} | {row: name for name, row in self._rows.items()}
        header = [_metadata("process_name", 0, {"name": "perception"})]
        for row, name in names.items():
            header.append(_metadata("thread_name", row, {"name": name}))
            header.append(_metadata("thread_sort_index", row, {"sort_index": row}))
        self._file.write(b"[\n" + b",\n".join(map(_encoded, header)))

    def record(self, tick: Tick) -> None:
        """Append one tick's events; raises `OutputError` where the disk refuses."""
        if self._origin_ns is None:
            self._origin_ns = tick.times.arrival_ns
        self._file.write(b"".join(b",\n" + _encoded(event) for event in self._events(tick)))
        self._file.flush()

    def close(self) -> None:
        """Close the array and give the file its name."""
        if not self._file.closed:
            self._file.write(b"\n]\n")
            self._file.close()

    def _events(self, tick: Tick) -> list[Event]:
        number, times = tick.frames.tick, tick.times
        about = {"tick": number, "missing": list(tick.frames.missing), "tracks": len(tick.tracks.tracks)}
        decision = tick.tracks.decision
        about |= asdict(decision)
        events = self._overlapping("tick", times.arrival_ns, times.published_ns, about)
        for span in times.spans:
            if span.stage == "ingest":
                name = f"{span.camera} ingest"
                events += self._overlapping(name, span.start_ns, span.end_ns, {"tick": number})
            else:
                events.append(self._slice(span, number))
        if times.deadline_ns is not None:
            events.append(self._instant("deadline", times.deadline_ns, number))
        if times.late:
            events.append(self._instant("late", times.published_ns, number))
        if decision.dropped:
            events.append(self._instant("dropped", times.arrival_ns, number))
        fusing_ns = next((span.start_ns for span in times.spans if span.stage == "fusion"), times.published_ns)
        events += [self._instant("cut off", fusing_ns, number, self._rows[camera]) for camera in decision.late]
        return [*events, self._event("C", "level", _FUSION_ROW, times.arrival_ns) | {"args": {"level": decision.level}}]

    def _slice(self, span: StageSpan, number: int) -> Event:
        row = self._rows.get(span.camera, _FUSION_ROW)
        event = self._event("X", span.stage, row, span.start_ns)
        return event | {"dur": (span.end_ns - span.start_ns) / 1e3, "args": {"tick": number}}

    def _instant(self, name: str, at_ns: int, number: int, row: int = _FUSION_ROW) -> Event:
        return self._event("i", name, row, at_ns) | {"s": "t", "args": {"tick": number}}

    def _overlapping(self, name: str, start_ns: int, end_ns: int, about: Event) -> list[Event]:
        """An asynchronous slice; the viewers make rows by its name."""
        key = {"cat": name, "id": about["tick"]}
        return [
            self._event("b", name, _FUSION_ROW, start_ns) | key | {"args": about},
            self._event("e", name, _FUSION_ROW, end_ns) | key,
        ]

    def _event(self, phase: str, name: str, row: int, at_ns: int) -> Event:
        origin_ns = self._origin_ns or 0
        return {"ph": phase, "name": name, "pid": _PROCESS, "tid": row, "ts": (at_ns - origin_ns) / 1e3}


def _metadata(name: str, row: int, args: Event) -> Event:
    return {"ph": "M", "name": name, "pid": _PROCESS, "tid": row, "args": args}


def _encoded(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode()
