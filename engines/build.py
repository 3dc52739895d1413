"""Compile detectors for the GPU: ``python -m engines.build MODEL.int8.onnx --config orin.yaml``.

The plan and its manifest go to ``engine.directory``, where a run with the same config finds them; without MODEL, those
of all detectors that the config names are built. On a machine with a GPU the golden input of the INT8 model has to give
its golden outputs, or the plan is not installed. TensorRT for RTX (``--flavor rtx``) also builds without a GPU: that
proves that NVIDIA's parser and builder take the model, and shows what runs in INT8.

Exit codes: 0 done, 1 interrupted, 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import onnxruntime
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines import trt
from perception import backends, config, cuda_backend
from perception.config import Config, EngineConfig
from perception.cuda.nvidia import PresentGpu, present_gpu
from perception.detect.manifest import FileHash, manifest_path, read_manifest, write_manifest
from perception.detect.model import check_file, unreadable
from perception.detect.plan_manifest import (
    Hardware,
    Parity,
    Place,
    PlanManifest,
    mismatch,
    plan_path,
    read_plan_manifest,
)
from perception.detect.tensorrt_library import Library, load_library
from perception.errors import BackendError, ConfigError, ModelError, OutputError, PerceptionError
from perception.hashing import sha256

EXIT_INTERRUPTED: Final = 1
EXIT_REFUSED: Final = 2
_SHOWN: Final = 8


class _Job(NamedTuple):
    """One model to build, and all that its plan will have to match."""

    model: Path
    size: tuple[int, int] | None
    engine: EngineConfig
    library: Library
    gpu: PresentGpu | None
    digest: str

    @property
    def plan(self) -> Path:
        return plan_path(self.engine, self.model, self.digest, self.size)

    @property
    def place(self) -> Place:
        hardware = (
            None if self.gpu is None else Hardware(name=self.gpu.name, compute_capability=self.gpu.compute_capability)
        )
        return Place(self.digest, self.library.flavor, self.library.version, hardware, self.engine.settings())


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, build, and turn what a user can mend into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments, Console())
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("interrupted: nothing was installed", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("engines.build", description="Compile ONNX detectors for the GPU.")
    add = parser.add_argument
    add("model", type=Path, nargs="?", metavar="MODEL.onnx", help="default: every detector that the config names")
    add("--config", default="orin.yaml", metavar="NAME", help="as for perception.run (default: %(default)s)")
    add("--flavor", choices=("auto", "tensorrt", "rtx"), help="TensorRT or TensorRT for RTX; auto: what is installed")
    add("--if-needed", action="store_true", help="only where a run would use TensorRT and the plan there will not do")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any key of the config")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> None:
    overrides = [config.parse_override(text) for text in arguments.set]
    if arguments.flavor:
        overrides.append(("engine.flavor", arguments.flavor))
    chosen = config.load(arguments.config, overrides)
    if arguments.if_needed:
        reason = _why_no_plan_is_needed(chosen)
        if reason is not None:
            console.print(f"no plan is needed: {reason}", soft_wrap=True, highlight=False)
            return
    library = load_library(chosen.engine.flavor)
    gpu = present_gpu()
    if gpu is None and library.flavor == "tensorrt":
        raise BackendError(
            f"{library.title} builds for the GPU that it runs on, and there is none here; "
            "build on the machine that is to run it, or try the model with --flavor rtx"
        )
    try:
        chosen.engine.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None
    for model, size in _detectors(chosen, arguments.model):
        check_file(model)
        job = _Job(model, size, chosen.engine, library, gpu, sha256(model))
        if arguments.if_needed and _up_to_date(job):
            console.print(f"{job.plan}: up to date", soft_wrap=True, highlight=False)
        else:
            _report(console, job, _build(job, console))


def _why_no_plan_is_needed(chosen: Config) -> str | None:
    """Why a run would not use TensorRT here; None where it would, or where the config names the flavor."""
    if chosen.engine.flavor != "auto":
        return None
    device = backends.choose_device(chosen.device, chosen.detector.runtime)
    if device.name == "cpu":
        return f"a run uses the CPU: {device.reason}"
    runtime = cuda_backend.choose_runtime(chosen.detector.runtime)
    return None if runtime.runtime == "tensorrt" else f"a run uses ONNX Runtime: {runtime.reason}"


def _detectors(chosen: Config, model: Path | None) -> list[tuple[Path, tuple[int, int] | None]]:
    """The one that was named; or the configured one, and those of the ladder."""
    usual = chosen.detector
    if model is not None:
        return [(model, usual.input_size)]
    rungs = [rung.detector for rung in chosen.enforcement.ladder if rung.detector is not None]
    wanted = [(usual.model, usual.input_size)]
    wanted += [(rung.model or usual.model, rung.input_size or usual.input_size) for rung in rungs]
    named = [(path, size) for path, size in dict.fromkeys(wanted) if path is not None]
    if not named:
        raise ConfigError("no detector: name an ONNX model, or a config with detector.model")
    return named


def _up_to_date(job: _Job) -> bool:
    try:
        manifest = read_plan_manifest(job.plan)
    except ModelError:
        return False  # what cannot be read is built again
    return manifest is not None and mismatch(manifest, job.plan, job.place) is None


def _build(job: _Job, console: Console) -> PlanManifest:
    """Build, check, install: plan and manifest both, or neither."""
    partial = job.plan.with_suffix(".plan.partial")
    try:
        with trt.BuildLog(job.plan.with_suffix(".log")) as log:
            manifest = _compile(job, log, partial, console)
        manifest = manifest.model_copy(update={"golden": _golden(job, manifest, partial)})
        manifest_path(job.plan).unlink(missing_ok=True)  # until its manifest is there, a plan is none
        partial.replace(job.plan)
        write_manifest(manifest, job.plan)
    except OSError as error:
        raise _unwritable(error) from None
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _unwritable(error: OSError) -> OutputError:
    return OutputError(f"{error.filename}: cannot be written: {error.strerror}; choose another engine.directory")


def _compile(job: _Job, log: trt.BuildLog, partial: Path, console: Console) -> PlanManifest:
    network = trt.parse(job.library, log, job.model, job.size)
    cache = job.engine.directory / job.engine.timing_cache if job.engine.timing_cache else None
    with _interruptible() as stop, _progress(console) as progress:
        monitor = trt.progress_monitor(job.library, progress, stop.is_set)
        try:
            plan = trt.build(job.library, log, network, job.engine, timing_cache=cache, monitor=monitor)
        except ModelError:
            if stop.is_set():
                raise KeyboardInterrupt from None
            raise
    partial.write_bytes(plan.data)
    return PlanManifest(
        plan=FileHash(name=job.plan.name, sha256=sha256(partial)),
        bytes=len(plan.data),
        onnx=FileHash(name=job.model.name, sha256=job.digest),
        metadata=_metadata(job.model),
        flavor=job.library.flavor,
        tensorrt=job.library.version,
        cuda=None if job.gpu is None else job.gpu.cuda,
        gpu=job.place.gpu,
        settings=job.engine.settings(),
        inputs=network.inputs,
        outputs=network.outputs,
        layers=plan.layers,
        quantised=network.quantised,
        quantisers=network.quantisers,
        build_s=round(plan.build_s, 3),
        golden=Parity(deviation=None, note="not verified (no GPU)"),
    )


def _golden(job: _Job, manifest: PlanManifest, partial: Path) -> Parity:
    """Run the golden input where that can be done; raises `ModelError` when the engine does not say what it should."""
    described = read_manifest(job.model)
    if described is None:
        return Parity(deviation=None, note="not verified (the model has no manifest with golden outputs)")
    if job.gpu is None:
        return manifest.golden

    from perception.cuda import Gpu  # noqa: PLC0415 (PyCUDA is there where a GPU is)
    from perception.detect.tensorrt import check_golden, open_plan  # noqa: PLC0415

    with Gpu() as gpu:
        engine = open_plan(job.library, manifest, partial, job.model, gpu)
        try:
            deviation = check_golden(engine, described.golden, "the plan was not installed; see its log")
        finally:
            engine.close()
    return Parity(deviation=deviation, note=f"verified on {job.gpu}")


def _metadata(model: Path) -> dict[str, str]:
    """What the ONNX file says of itself: names of classes, how it wants its images."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (the runtime's errors share no narrower base)
        raise unreadable(model, "ONNX Runtime", error) from None
    return dict(session.get_modelmeta().custom_metadata_map)


def _report(console: Console, job: _Job, manifest: PlanManifest) -> None:
    lines = [
        f"{job.plan}",
        manifest.line(),
        f"{manifest.bytes / 1e6:.2f} MB, {len(manifest.layers)} layers, built in {manifest.build_s:.1f} s",
        f"golden outputs {manifest.golden.note}; all that the builder said is in {job.plan.with_suffix('.log').name}",
    ]
    for title, line in zip(("engine", "", "", ""), lines, strict=True):
        console.print(f"[bold]{title:<9}[/] {escape(line)}", soft_wrap=True, highlight=False)
    _warn(console, "not in INT8, though quantised", manifest.not_in_int8())
    _warn(console, "quantise or dequantise by themselves", [layer.name for layer in manifest.unfused()])
    if not manifest.layers:
        _warn(console, "the builder printed no layers, so what runs in INT8 is not known", ["see the log"])


def _warn(console: Console, what: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        console.print(f"[yellow]warning[/]   {what}: {escape(', '.join(names[:_SHOWN]))}{more}", soft_wrap=True)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM ask the builder to stop at its next step."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    sys.exit(main())
