"""How much the pipeline adds to what the work itself costs: ``python -m perception.bench --replay DRIVE --model ONNX``.

One drive is looped back to back: the recording's idle time is skipped, nothing else, so decoding counts as it does at
the recording's own pace. In turn with it, block by block so that a noisy machine is noisy for all, the same frames go
through

- the *floor*: decode them as the pipeline does, on as many threads, then the bare inference
  of their prepared tensors on the same runtime;
- the pipeline stepped, decoding ahead, for its throughput;
- the *script*: what one writes on a first afternoon. One camera after the other, `cv2.imdecode`, resize, ONNX Runtime
  as it comes, `cv2.dnn.NMSBoxes`; no tracks.

With ``--device cuda`` it is the GPU path that is measured, see `perception.bench_cuda`.

With ``--enforce`` none of this is measured: the budgets of the config are held against what its ticks cost on this
machine, see `perception.contract`. Exit codes: 0 done, and with ``--enforce`` the budgets were kept, 1 they were not,
2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perception import backends, bench_cuda, config, contract
from perception.arguments import count
from perception.assembly import assemble
from perception.clock import SteppedClock
from perception.config import Config
from perception.detect import recognise
from perception.errors import ConfigError, PerceptionError
from perception.governor import Enforcement, Undisturbed
from perception.ingest.decode import decode_image
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import EncodedImage, Image, Needed, Rig, Tick
from perception.output.files import write_whole
from perception.output.jsonl import TracksWriter
from perception.output.summary import machine
from perception.preprocess.opencv import OpenCvPreprocessor

EXIT_BROKEN: Final = 1
EXIT_REFUSED: Final = 2
BLOCK_TICKS: Final = 100
SETTLED_TICKS: Final = 500
"""Memory is compared with what it was after this many ticks."""

EncodedSet = dict[str, EncodedImage]


class BackToBackClock:
    """The recording's time without its idle time: it jumps to the next tick when the pipeline asks for that.

    The pipeline is the thread that made the clock. All other threads wait, as frames do that are not due yet.
    """

    stepped = False

    def __init__(self) -> None:
        self._stamp_ns = 0
        self._pipeline = threading.get_ident()
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def due_ns(self, stamp_ns: int) -> int:  # noqa: ARG002 (the same for all)
        """Now."""
        return self.now_ns()

    def wait_until(self, stamp_ns: int) -> int:
        """Jump to `stamp_ns`, or wait until the pipeline does."""
        with self._moved:
            if threading.get_ident() == self._pipeline:
                self._stamp_ns = max(self._stamp_ns, stamp_ns)
                self._moved.notify_all()
            else:
                self._moved.wait_for(lambda: stamp_ns <= self._stamp_ns)
        return self.now_ns()

    def stamp_ns(self) -> int:
        """Where the recording stands."""
        return self._stamp_ns

    def finish(self) -> None:
        """Let all who wait go."""
        self.wait_until(2**63)


class Floor:
    """What cannot be saved: decoding on all threads, then inference of all cameras at once, and nothing else."""

    def __init__(self, chosen: Config, rig: Rig, threads: int) -> None:
        detector = backends.load_detector(chosen, threads, len(rig))
        spec = recognise.recognise(detector.model, chosen.detector).input_spec
        self._rig = rig
        self._requests = {name: detector.request() for name in rig}
        self._preprocess = {c.name: OpenCvPreprocessor((c.width, c.height), spec) for c in rig.values()}
        self._workers = ThreadPoolExecutor(threads)

    def __call__(self, encoded: EncodedSet) -> tuple[int, int]:
        """Nanoseconds for decoding and for inference."""
        started = time.monotonic_ns()
        images = list(self._workers.map(self._decode, encoded, encoded.values()))
        decoded = time.monotonic_ns()
        requests = [self._requests[name] for name in encoded]
        for name, image, request in zip(encoded, images, requests, strict=True):
            self._preprocess[name](image, request.input)
        prepared = time.monotonic_ns()
        for request in requests:
            request.submit()
        for request in requests:
            request.collect()
        return decoded - started, time.monotonic_ns() - prepared

    def _decode(self, camera: str, encoded: EncodedImage) -> Image:
        needed = Needed(self._preprocess[camera].letterbox.resized_size)
        return decode_image(encoded.data, self._rig[camera], needed)


class Script:
    """The obvious script, for a detector with any known head."""

    def __init__(self, chosen: Config) -> None:
        detector = backends.load_detector(chosen, 1, 1)
        self._head, self._spec, _ = recognise.recognise(detector.model, chosen.detector)
        self._session = onnxruntime.InferenceSession(str(chosen.detector.model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._nms = chosen.nms
        self._score_threshold = chosen.detector.score_threshold

    def __call__(self, encoded: EncodedSet) -> int:
        """Nanoseconds for all cameras, one after the other."""
        started = time.monotonic_ns()
        for image in encoded.values():
            self._detect(cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR))
        return time.monotonic_ns() - started

    def _detect(self, image: Any) -> Sequence[int]:
        spec = self._spec
        scale = min(spec.width / image.shape[1], spec.height / image.shape[0])
        resized = cv2.resize(image, None, fx=scale, fy=scale)
        padded: Any = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
        padded[: resized.shape[0], : resized.shape[1]] = resized
        if spec.channel_order == "rgb":
            padded = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)
        tensor = (padded.astype(np.float32) * spec.scale - spec.mean) / spec.std
        tensor = np.ascontiguousarray(tensor.transpose(2, 0, 1)[None], np.float32)
        outputs = [output[0] for output in self._session.run(None, {self._input: tensor})]
        candidates = self._head(outputs)
        sizes = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        boxes = np.concatenate([candidates.boxes[:, :2], sizes], axis=1)
        return cv2.dnn.NMSBoxesBatched(
            boxes.tolist(),
            candidates.scores.tolist(),
            candidates.labels.tolist(),
            self._score_threshold,
            self._nms.iou_threshold,
        )


def bench(chosen: Config, ticks: int, console: Console) -> dict[str, Any]:
    """Run `ticks` ticks of the pipeline, the floor and the script in turn; what was measured, in milliseconds."""
    threads = chosen.threads or len(os.sched_getaffinity(0))
    with ExitStack() as resources:
        latency, rig = _pipeline(chosen, BackToBackClock(), threads, ticks, resources)
        throughput, _ = _pipeline(chosen, SteppedClock(), threads, ticks, resources)
        floor, script = Floor(chosen, rig, threads), Script(chosen)
        times: dict[str, list[int]] = {"end_to_end": [], "floor": [], "decode": [], "inference": [], "script": []}
        stepped_ns, settled_kb = 0, 0
        for done in track(range(0, ticks, BLOCK_TICKS), "", console=console, transient=True):
            block = [
                (tick.times.end_to_end_ns, {f.camera: f.encoded for f in tick.frames.frames if f.encoded})
                for tick in islice(latency, min(BLOCK_TICKS, ticks - done))
            ]
            for end_to_end_ns, encoded in block:
                decode_ns, inference_ns = floor(encoded)
                times["end_to_end"].append(end_to_end_ns)
                times["floor"].append(decode_ns + inference_ns)
                times["decode"].append(decode_ns)
                times["inference"].append(inference_ns)
            started = time.monotonic_ns()
            for _ in islice(throughput, len(block)):
                pass
            stepped_ns += time.monotonic_ns() - started
            times["script"].extend(script(encoded) for _, encoded in block)
            if done < SETTLED_TICKS:
                settled_kb = _resident_kb()
        resident_kb = _resident_kb()
    measured = {name: _percentiles(values) for name, values in times.items()}
    return {
        "machine": machine(),
        "drive": str(chosen.replay),
        "model": str(chosen.detector.model),
        "cameras": len(rig),
        "threads": threads,
        "ticks": len(times["end_to_end"]),
        "ms": measured,
        "stepped_ms_per_tick": stepped_ns / 1e6 / len(times["end_to_end"]),
        "end_to_end_over_floor": measured["end_to_end"]["p50"] / measured["floor"]["p50"],
        "throughput_over_script": sum(times["script"]) / stepped_ns,
        "resident_mb": {"settled": settled_kb / 1024, "at_the_end": resident_kb / 1024},
    }


def _pipeline(
    chosen: Config, clock: BackToBackClock | SteppedClock, threads: int, loop: int, resources: ExitStack
) -> tuple[Iterator[Tick], Rig]:
    """The ticks of the looped drive, made as they are asked for, and its rig."""
    if chosen.replay is None:
        raise ConfigError("nothing to replay: name a drive with --replay")
    drive = open_drive(chosen.replay, chosen.rig)

    def make_source(backend: backends.Backend, _: Enforcement) -> Replay:
        return Replay(drive, clock, chosen.sync, threads=threads, loop=loop, needed=backend.needed)

    parts = resources.enter_context(assemble(chosen, drive.rig, clock, make_source, Undisturbed(drive.rig)))
    if isinstance(clock, BackToBackClock):
        resources.callback(clock.finish)
    tracks = TracksWriter(Path(resources.enter_context(tempfile.TemporaryDirectory())))
    resources.callback(tracks.close)
    pipeline = parts.pipeline([tracks])
    return resources.enter_context(closing(pipeline.run(parts.source))), parts.rig


def _percentiles(values_ns: Sequence[int]) -> dict[str, float]:
    at = np.percentile(np.array(values_ns) / 1e6, (50, 99, 99.9))
    return dict(zip(("p50", "p99", "p99.9"), at.tolist(), strict=True))


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def print_result(console: Console, result: dict[str, Any]) -> None:
    """Print what was measured, as a table and three ratios."""
    where = f"{result['machine']['cpu']}, {result['threads']} threads"
    console.print(f"\n{result['ticks']} ticks of {result['cameras']} cameras back to back on {where}; ms per tick")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("")
    for heading in ("p50", "p99", "p99.9"):
        table.add_column(heading, justify="right", min_width=8)
    rows = {
        "end_to_end": "pipeline, end to end",
        "floor": "floor: decode + bare inference",
        "decode": "  decode",
        "inference": "  bare inference",
        "script": "obvious script, no tracks",
    }
    for key, title in rows.items():
        table.add_row(title, *(f"{value:.2f}" for value in result["ms"][key].values()))
    console.print(table)
    memory = result["resident_mb"]
    change = memory["at_the_end"] / memory["settled"] - 1
    settled_ticks = min(SETTLED_TICKS, result["ticks"])
    console.print(f"end to end over floor, p50      {result['end_to_end_over_floor']:.2f}")
    console.print(
        f"throughput over the script's    {result['throughput_over_script']:.2f}   "
        f"(stepped, {result['stepped_ms_per_tick']:.2f} ms per tick)"
    )
    console.print(
        f"resident memory                 {memory['settled']:.1f} MB after {settled_ticks} ticks, "
        f"{memory['at_the_end']:.1f} MB after {result['ticks']} ({change:+.2%})"
    )


def _of(arguments: argparse.Namespace) -> tuple[Callable[..., dict[str, Any]], Callable[..., None]]:
    """What measures, and what shows it."""
    if arguments.enforce:
        return contract.hold, contract.print_verdict
    if arguments.device == "cuda":
        return bench_cuda.bench, bench_cuda.print_result
    return bench, print_result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON where asked for; returns the exit code."""
    parser = argparse.ArgumentParser("perception.bench", description="The pipeline against floor and script.")
    parser.add_argument("--config", default="cpu.yaml", metavar="NAME")
    parser.add_argument("--replay", metavar="DRIVE")
    parser.add_argument("--model", metavar="ONNX")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda: the GPU path, beside its own floors")
    parser.add_argument("--enforce", action="store_true", help="hold the budgets: fail where they are not kept")
    parser.add_argument("--ticks", type=count, default=1000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args(argv)
    flags = [("replay", arguments.replay), ("detector.model", arguments.model), ("device", arguments.device)]
    try:
        overrides = [(key, value) for key, value in flags if value] + list(map(config.parse_override, arguments.set))
        console = Console()
        measure, show = _of(arguments)
        result = measure(config.load(arguments.config, overrides), max(arguments.ticks, 1), console)
        show(console, result)
        if arguments.json:
            write_whole(arguments.json, (json.dumps(result, indent=2) + "\n").encode())
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_BROKEN if result.get("breaches") else 0


if __name__ == "__main__":
    sys.exit(main())
