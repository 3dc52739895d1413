"""``recording.mcap``: what a run saw and found, to open in Foxglove.

| topic | schema |
|---|---|
| ``/tracks`` | foxglove.SceneUpdate |
| ``/<CAMERA>/detections`` | foxglove.ImageAnnotations |
| ``/<CAMERA>/camera_info`` | foxglove.CameraCalibration |
| ``/<CAMERA>/image_rect_compressed`` | foxglove.CompressedImage, if asked for; of an ideal camera |
| ``/<CAMERA>/image_compressed`` | the same of a camera with distortion |
| ``/<CAMERA>/video`` | foxglove.CompressedVideo, if asked for and if that is how the frames came |
| ``/tf`` | foxglove.FrameTransforms |
| ``/latency`` | JSON: each stage's charge in milliseconds and what enforcement did, for the Plot panel |
| ``/diagnostics`` | foxglove.Log: what went wrong, what was left out, steps on the ladder |

With the images in it, it is a drive, and can be replayed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from mcap.writer import CompressionType, Writer

from perception.budget import WAITING, charge
from perception.messages import STAGES, Decision, EncodedImage, Frame, FrameSet, Image, Rig, Tick
from perception.output import foxglove
from perception.output.files import AtomicFile
from perception.pixels import to_bgr

RECORDING: Final = "recording.mcap"
_JPEG_QUALITY: Final = 92
_CHUNK_BYTES: Final = 256 * 1024  # what a killed run loses at most
_LATENCY_SCHEMA: Final = {
    "type": "object",
    "title": "perception.Latency",
    "properties": {
        "tick": {"type": "integer"},
        "late": {"type": "boolean"},
        "deadline_ms": {"type": ["number", "null"]},
        "end_to_end_ms": {"type": "number"},
        "age_ms": {"type": "number"},
        "skew_ms": {"type": "number"},
        "level": {"type": "integer"},
        "dropped": {"type": "boolean"},
        "deadline_met": {"type": "boolean"},
        "missing": {"type": "integer"},
        "skipped": {"type": "integer"},
        "cut_off": {"type": "integer"},
        **{f"{stage}_ms": {"type": "number"} for stage in (*STAGES, WAITING)},
    },
}


class RecordingWriter:
    """Records ticks to ``recording.mcap``; log time is the data's own time.

    `faults` gives all that was wrong with the data so far, as a source does; each line is logged when it is new.
    """

    def __init__(self, directory: Path, rig: Rig, *, record_images: bool, faults: Callable[[], Sequence[str]]) -> None:
        self._rig = rig
        self._record_images = record_images
        self._diagnostics = _Diagnostics(faults)
        self._file = AtomicFile(directory / RECORDING)
        stream: Any = self._file  # as much of one as the writer uses
        self._writer = Writer(stream, chunk_size=_CHUNK_BYTES, compression=CompressionType.ZSTD, enable_data_crcs=True)
        self._writer.start(library="perception")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._shown: set[int] = set()
        self._last: FrameSet | None = None

    def record(self, tick: Tick) -> None:
        """Record one tick; raises `OutputError` where the disk refuses."""
        stamp_ns, number = tick.frames.stamp_ns, tick.frames.tick
        self._write("/tf", stamp_ns, number, foxglove.transforms(self._poses(tick)))
        for frame in tick.frames.frames:
            self._record_camera(frame, number)
        for found in tick.detections:
            self._write(f"/{found.camera}/detections", found.capture_ns, number, foxglove.image_annotations(found))
        shown = {track.id for track in tick.tracks.tracks}
        gone = sorted(self._shown - shown)
        self._shown = shown
        self._write("/tracks", stamp_ns, number, foxglove.scene_update(tick.tracks, gone))
        self._write_latency(tick)
        self._log(stamp_ns, number, self._diagnostics.of_tick(tick))
        self._last = tick.frames
        self._file.flush()  # whole chunks outlive this process, however it ends

    def note(self, level: str, text: str) -> None:
        """Log a line at the time of the last tick; `level` as `foxglove.log`."""
        if self._last is not None:
            self._log(self._last.stamp_ns, self._last.tick, [(level, text)])

    def close(self) -> None:
        """Write the index and give the file its name."""
        if self._file.closed:
            return
        if self._last is not None:
            self._log(self._last.stamp_ns, self._last.tick, self._diagnostics.at_end())
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()

    def abandon(self) -> None:
        """Give up a file that cannot be written to: it stays partial."""
        self._file.abandon()

    def _poses(self, tick: Tick) -> list[tuple[int, str, str, Any]]:
        """All transforms in every tick: whoever jumps into the middle gets only the newest message of a topic."""
        frames = tick.frames
        of_ego = {frame.capture_ns: frame.map_from_base for frame in frames.frames}
        of_ego[frames.stamp_ns] = frames.map_from_base
        ego = [(s, foxglove.MAP, foxglove.BASE, pose) for s, pose in sorted(of_ego.items()) if pose is not None]
        mounts = [(frames.stamp_ns, foxglove.BASE, c.name, c.base_from_camera) for c in self._rig.values()]
        return [*ego, *mounts]

    def _record_camera(self, frame: Frame, number: int) -> None:
        name, stamp_ns = frame.camera, frame.capture_ns
        self._write(f"/{name}/camera_info", stamp_ns, number, foxglove.calibration(self._rig[name], stamp_ns))
        if self._record_images and (frame.encoded or frame.decoded):
            message = foxglove.image(name, frame.encoded or as_jpeg(frame.image), stamp_ns)
            self._write(f"/{name}/{self._image_topic(name, message)}", stamp_ns, number, message)

    def _image_topic(self, camera: str, message: Message) -> str:
        """Readers take images whose topic says that they are rectified for free of distortion."""
        if message.DESCRIPTOR.name == "CompressedVideo":
            return "video"
        ideal = self._rig[camera].distortion_model == "none"
        return "image_rect_compressed" if ideal else "image_compressed"

    def _write_latency(self, tick: Tick) -> None:
        number, times, decision = tick.frames.tick, tick.times, tick.tracks.decision
        deadline = None if times.deadline_ns is None else (times.deadline_ns - times.arrival_ns) / 1e6
        record = {
            "tick": number,
            "late": times.late,
            "deadline_ms": deadline,
            "end_to_end_ms": times.end_to_end_ns / 1e6,
            "age_ms": decision.age_ns / 1e6,
            "skew_ms": tick.frames.skew_ns / 1e6,
            "level": decision.level,
            "dropped": decision.dropped,
            "deadline_met": decision.deadline_met,
            "missing": len(tick.frames.missing),
            "skipped": len(decision.skipped),
            "cut_off": len(decision.late),
            **{f"{stage}_ms": round(spent_ns / 1e6, 4) for stage, spent_ns in charge(times).items()},
        }
        if "/latency" not in self._channels:
            schema = self._writer.register_schema("perception.Latency", "jsonschema", _json(_LATENCY_SCHEMA))
            self._channels["/latency"] = self._writer.register_channel("/latency", "json", schema)
        self._add("/latency", tick.frames.stamp_ns, number, _json(record))

    def _log(self, stamp_ns: int, number: int, entries: Sequence[tuple[str, str]]) -> None:
        for level, text in entries:
            self._write("/diagnostics", stamp_ns, number, foxglove.log(stamp_ns, level, text))

    def _write(self, topic: str, stamp_ns: int, number: int, message: Message) -> None:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, "protobuf", self._schema(message))
        self._add(topic, stamp_ns, number, message.SerializeToString())

    def _schema(self, message: Message) -> int:
        name = message.DESCRIPTOR.full_name
        if name not in self._schemas:
            self._schemas[name] = self._writer.register_schema(name, "protobuf", _descriptors(message))
        return self._schemas[name]

    def _add(self, topic: str, stamp_ns: int, number: int, data: bytes) -> None:
        self._writer.add_message(self._channels[topic], stamp_ns, data, publish_time=stamp_ns, sequence=number)


class _Diagnostics:
    """What is worth a line in the log: late ticks, what was left out, cameras lost and found, faults of the data."""

    def __init__(self, faults: Callable[[], Sequence[str]]) -> None:
        self._faults = faults
        self._told: frozenset[str] = frozenset()
        self._missing: tuple[str, ...] = ()
        self._level = 0
        self._ticks = self._late = self._with_missing = self._dropped = self._cut_off = 0

    def of_tick(self, tick: Tick) -> list[tuple[str, str]]:
        """(level, line) for what this tick brought."""
        number, missing, times = tick.frames.tick, tick.frames.missing, tick.times
        self._ticks += 1
        self._late += times.late
        self._with_missing += bool(missing)
        entries = [("WARNING", f"tick {number}: {c} is missing") for c in missing if c not in self._missing]
        entries += [("INFO", f"tick {number}: {c} is back") for c in self._missing if c not in missing]
        self._missing = missing
        if times.deadline_ns is not None and times.late:
            over_ms = (times.published_ns - times.deadline_ns) / 1e6
            entries.append(("WARNING", f"tick {number}: late by {over_ms:.2f} ms"))
        return entries + self._left_out(number, tick.tracks.decision) + self._new_faults()

    def _left_out(self, number: int, decision: Decision) -> list[tuple[str, str]]:
        self._dropped += decision.dropped
        self._cut_off += bool(decision.late)
        entries = []
        if decision.level != self._level:
            severity = "WARNING" if decision.level > self._level else "INFO"
            entries.append((severity, f"tick {number}: level {decision.level} of the ladder, it was {self._level}"))
            self._level = decision.level
        if decision.dropped:
            entries.append(("WARNING", f"tick {number}: dropped, too old to be finished in time"))
        if decision.late:
            entries.append(("WARNING", f"tick {number}: cut off: {', '.join(decision.late)}"))
        return entries

    def at_end(self) -> list[tuple[str, str]]:
        """What came up last, and the sums."""
        sums = f"{self._ticks} ticks: {self._late} late, {self._with_missing} with a camera missing"
        sums += f", {self._dropped} dropped, {self._cut_off} with a camera cut off"
        return [*self._new_faults(), ("INFO", sums)]

    def _new_faults(self) -> list[tuple[str, str]]:
        faults = self._faults()
        new = [("ERROR", fault) for fault in faults if fault not in self._told]
        self._told = frozenset(faults)
        return new


def as_jpeg(image: Image) -> EncodedImage:
    """An image of a live camera or a video file, which does not come as one."""
    data = cv2.imencode(".jpg", to_bgr(image), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return EncodedImage("jpeg", data.tobytes())


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()


def _descriptors(message: Message) -> bytes:
    """The message's schema as MCAP wants it: its file's descriptor after those that it imports."""
    files: dict[str, Any] = {}

    def collect(file: Any) -> None:
        for imported in file.dependencies:
            collect(imported)
        files[file.name] = file

    collect(message.DESCRIPTOR.file)
    result = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(result.file.add())
    return result.SerializeToString()
