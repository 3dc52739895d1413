"""Run the pipeline in the foreground: ``python -m perception.run --config orin.yaml --replay DRIVE``.

Exit codes: 0 done, 1 interrupted (results kept), 2 refused (one line says why), 3 done as far as the recording was
readable (results kept).
"""

from __future__ import annotations

from perception import interrupts

if __name__ == "__main__":  # before the imports, which take a while
    interrupts.end_at_once()

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from perception import again, backends, config, realtime
from perception.again import Again
from perception.assembly import Assembly, assemble, assemble_on_cameras
from perception.assume import AssumedSource, Assumption, load_profile
from perception.choices import choices, print_choices
from perception.clock import Clock, LiveClock, RealTimeReplayClock, SteppedClock
from perception.comparison import compare, print_comparison
from perception.config import AssumeConfig, Config
from perception.errors import ConfigError, PerceptionError
from perception.governor import Enforcement, Undisturbed
from perception.ingest.drive import Drive
from perception.ingest.live import Live
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.output.decisions import DecisionsWriter
from perception.output.flight import FlightRecorder
from perception.output.jsonl import DetectionsWriter, TracksWriter, read_detections, read_tracks
from perception.output.profile import ProfileRecorder
from perception.output.recording import RecordingWriter
from perception.output.report import print_report
from perception.output.summary import machine, write_summary
from perception.output.trace import TraceWriter
from perception.pipeline import Pipeline
from perception.stages import Recorder

EXIT_INTERRUPTED: Final = interrupts.EXIT_INTERRUPTED
EXIT_REFUSED: Final = 2
EXIT_DAMAGED: Final = 3
_REFRESH_S: Final = 0.2
_IDEAL: Final = "ideal"
_RESULTS: Final = (
    "tracks.jsonl",
    "detections.jsonl",
    "decisions.jsonl",
    "recording.mcap",
    "trace.json",
    "video.mp4",
    "evaluation.json",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and turn what a user can mend into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.print_schema:
            print(config.schema(), end="")
            return 0
        chosen, source = _settle(arguments)
        if arguments.print_config:
            print(config.to_yaml(chosen), end="")
            return 0
        return run(chosen, source)
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _settle(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """The config to run with, and the file that it comes from."""
    name, overrides = arguments.config, _overrides(arguments)
    if arguments.decisions is not None:
        return again.settle(Path(arguments.decisions), name, overrides)
    name = name or config.DEFAULT
    return config.load(name, overrides), config.find(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("perception.run", description="Turn a drive into tracked objects.")
    add = parser.add_argument
    add("--config", metavar="NAME", help=f"a file, or a name in configs/ (default: {config.DEFAULT}, or the run's)")
    add("--replay", metavar="DRIVE", help="an .mcap recording, a video file, or a folder of images")
    add("--rig", metavar="FILE", help="calibration, for drives that hold none")
    add("--model", metavar="ONNX", help="the detector")
    add("--out", metavar="DIR", help="where results go (default: runs/latest)")
    add("--device", choices=("auto", "cpu", "cuda"))
    add("--threads", metavar="N", help="worker threads (default: every core allowed)")
    add("--pace", choices=("realtime", "stepped"), help="at the recording's own pace, or every frame come what may")
    add("--loop", metavar="N", help="replay the drive N times")
    add("--decisions", metavar="RUN", help="have a run again: its frames, drops, cut-offs and levels, byte for byte")
    add("--video", action="store_true", default=None, help="draw video.mp4 after the run")
    add("--trace", action="store_true", default=None, help="write trace.json for Perfetto")
    add("--assume", metavar="PROFILE", help="in the virtual time of another machine, beside the ideal one")
    add("--profile-out", metavar="FILE", help="write what this machine's ticks cost, for --assume elsewhere")
    add("--record-images", action="store_true", default=None, help="put the input images into recording.mcap too")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override any key, such as nms.iou_threshold=0.6",
    )
    add("--print-config", action="store_true", help="print the whole config as it would run, and stop")
    add("--print-schema", action="store_true", help="print the JSON Schema of configs, and stop")
    return parser


_FLAG_KEYS: Final = {
    "replay": "replay",
    "rig": "rig",
    "model": "detector.model",
    "out": "output.directory",
    "device": "device",
    "threads": "threads",
    "pace": "pace",
    "loop": "loop",
    "decisions": "decisions",
    "video": "output.video",
    "trace": "output.trace",
    "record_images": "output.record_images",
    "assume": "assume.profile",
    "profile_out": "output.profile",
}


def _overrides(arguments: argparse.Namespace) -> list[tuple[str, Any]]:
    flags = [(key, getattr(arguments, flag)) for flag, key in _FLAG_KEYS.items()]
    return [(key, value) for key, value in flags if value is not None] + [
        config.parse_override(text) for text in arguments.set
    ]


def run(chosen: Config, config_file: Path) -> int:
    """Put the configured drive or cameras through the pipeline and write its results; returns the exit code."""
    with ExitStack() as whole_run:
        whole_run.enter_context(_log_to_stderr())
        return _run(chosen, config_file, whole_run)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """What the pipeline logs, such as steps down and up the ladder, is for whoever watches the run."""
    logger, handler = logging.getLogger("perception"), _Stderr()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Stderr(logging.Handler):
    """To where stderr is now: a progress bar puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def _run(chosen: Config, config_file: Path, whole_run: ExitStack) -> int:
    console = Console()
    directory = chosen.output.directory
    device = backends.choose_device(chosen.device, chosen.detector.runtime)
    stop = threading.Event()
    with ExitStack() as resources:
        assumption = _assumption(chosen)
        if chosen.replay is None:
            parts = resources.enter_context(_on_cameras(chosen, stop))
        else:
            parts = resources.enter_context(_on_drive(chosen, assumption, stop))
        clock = parts.clock
        source, ledger = parts.source, parts.ledger
        whole_run.enter_context(interrupts.asking(stop))  # from here on there is something to be kept
        profile = ProfileRecorder(chosen.output.profile, list(parts.rig)) if chosen.output.profile else None
        recorders = [*_recorders(chosen, parts), *([profile] if profile else [])]
        for recorder in recorders:
            resources.callback(recorder.close)
        tracks = TracksWriter(directory)
        resources.callback(tracks.close)
        pipeline = parts.pipeline([tracks], recorders)
        settled = choices(chosen, config_file, device, parts) | resources.enter_context(_running_first(parts))
        print_choices(console, settled)
        for name in (*_RESULTS, *(f"{_IDEAL}/{name}" for name in _RESULTS)):
            (directory / name).unlink(missing_ok=True)  # of an earlier run: what stays must be of one run
        began = time.perf_counter()
        _run_ticks(pipeline, source, stop, console)
        wall_s = time.perf_counter() - began

    faults = parts.faults()
    if chosen.output.video and not stop.is_set():
        _draw_video(chosen, stop, console)
    assumed = None if assumption is None else _beside_the_ideal(chosen, assumption, stop, console)
    files = [directory / name for name in _RESULTS]
    summary = write_summary(
        directory,
        config=chosen,
        chosen=settled,
        cameras=list(parts.rig),
        ledger=ledger,
        faults=faults,
        files=files,
        wall_s=wall_s,
        enforcement=parts.enforcement,
        assumed=assumed,
    )
    results = [*files, summary]
    print_report(
        console, ledger, stepped=clock.stepped, directory=directory, files=results, assumed=assumption is not None
    )
    if chosen.decisions is not None and not stop.is_set():
        console.print(
            Text.assemble(("Again", "bold"), f"    {again.same(chosen.decisions, directory)}"), soft_wrap=True
        )
    if assumed is not None:
        print_comparison(console, assumed["tracks"])
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if profile is not None:
        profile.write(_machine(assumption))
    if stop.is_set():
        print(f"interrupted: the results are of {ledger.ticks} ticks", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DAMAGED if faults else 0


@contextmanager
def _running_first(parts: Assembly[Any]) -> Iterator[dict[str, str]]:
    """Real-time priority for the thread that ticks, as in the daemon, where ticks can be late; says if it was had."""
    if not isinstance(parts.clock, (RealTimeReplayClock, LiveClock)):
        yield {}
        return
    priority = parts.config.daemon.fifo_priority
    with realtime.running_first(priority) as problem:
        had = (
            "as other processes" if priority is None else f"real-time for the thread that ticks, SCHED_FIFO {priority}"
        )
        yield {"priority": problem or had}


def _on_drive(
    chosen: Config, assumption: Assumption | None, stop: threading.Event
) -> AbstractContextManager[Assembly[Any]]:
    clock = _clock(chosen, assumption)
    drive = _open_drive(chosen)
    _keep_apart(chosen)
    followed = None if chosen.decisions is None else again.follow(chosen.decisions, chosen, drive.rig)
    make_source = _source(chosen, drive, clock, stop, assumption=assumption, followed=followed)
    decider = followed and followed.enforcement
    return assemble(chosen, drive.rig, clock, make_source, decider, assumption=assumption)


def _on_cameras(chosen: Config, stop: threading.Event) -> AbstractContextManager[Assembly[Any]]:
    for key, given in (
        ("pace: stepped", chosen.pace == "stepped"),
        ("output.video", chosen.output.video),
        ("assume.profile", chosen.assume.profile is not None),
        ("decisions", chosen.decisions is not None),
    ):
        if given:
            raise ConfigError(f"{key}: is for replays; record the live cameras with --record-images and replay that")

    def on_quiet(live: Live, _: float) -> None:
        if stop.is_set():
            live.close()

    return assemble_on_cameras(chosen, on_quiet)


def _open_drive(chosen: Config) -> Drive:
    if chosen.replay is None:
        raise ConfigError("nothing to replay: name a drive with --replay")
    return open_drive(chosen.replay, chosen.rig)


def _keep_apart(chosen: Config) -> None:
    """Refuse to write over the very recording that is replayed."""
    results = {(chosen.output.directory / name).resolve() for name in _RESULTS}
    if chosen.replay is not None and chosen.replay.resolve() in results:
        raise ConfigError(f"{chosen.replay}: is what this run would write over; name another directory with --out")
    if chosen.decisions is not None and chosen.decisions.resolve() == chosen.output.directory.resolve():
        raise ConfigError(f"{chosen.decisions}: this run would write over it; name another directory with --out")


def _assumption(chosen: Config) -> Assumption | None:
    if chosen.assume.profile is None:
        return None
    if chosen.pace == "stepped":
        raise ConfigError("--assume is about what is late, and with pace: stepped nothing is; leave one of them out")
    return Assumption(load_profile(chosen.assume.profile), chosen.assume.seed)


def _clock(chosen: Config, assumption: Assumption | None) -> Clock:
    if chosen.decisions is not None and (chosen.pace != "stepped" or assumption is not None):
        raise ConfigError("--decisions says what was late, so no time passes: leave out --pace realtime and --assume")
    if assumption is not None:
        return assumption.clock
    return SteppedClock() if chosen.pace == "stepped" else RealTimeReplayClock()


def _machine(assumption: Assumption | None) -> str:
    """The machine that the ticks ran on, or would have."""
    if assumption is not None:
        return assumption.profile.machine
    here = machine()
    return f"{here['cpu']}, {here['cores_allowed']} cores"


def _beside_the_ideal(
    chosen: Config, assumption: Assumption, stop: threading.Event, console: Console
) -> dict[str, Any]:
    """What was assumed, and how right the tracks are beside those of the same drive, stepped: for the summary."""
    directory, profile = chosen.output.directory, assumption.profile
    about = {"profile": str(chosen.assume.profile), "seed": chosen.assume.seed}
    about |= {"about": profile.about, "machine": profile.machine}
    if stop.is_set() or chosen.replay is None or _run_ideal(chosen, directory / _IDEAL, stop, console):
        return about | {"tracks": {"why_not": "the run was interrupted"}}
    return about | {"tracks": compare(directory, directory / _IDEAL, chosen.replay, chosen.rig)}


def _run_ideal(chosen: Config, directory: Path, stop: threading.Event, console: Console) -> bool:
    """Replay the drive once more, stepped; True when a signal ended it."""
    ideal = chosen.model_copy(update={"pace": "stepped", "assume": AssumeConfig()})
    clock, drive = SteppedClock(), _open_drive(ideal)
    with (
        assemble(ideal, drive.rig, clock, _source(ideal, drive, clock, stop)) as parts,
        closing(TracksWriter(directory)) as tracks,
        closing(DetectionsWriter(directory)) as detections,
    ):
        return _run_ticks(parts.pipeline([tracks], [detections]), parts.source, stop, console)


def _source(
    chosen: Config,
    drive: Drive,
    clock: Clock,
    stop: threading.Event,
    *,
    assumption: Assumption | None = None,
    followed: Again | None = None,
) -> Callable[[backends.Backend, Enforcement], Replay | AssumedSource]:
    def make(backend: backends.Backend, enforcement: Enforcement) -> Replay | AssumedSource:
        def on_quiet(_: float) -> None:
            if stop.is_set():
                replay.close()

        replay = Replay(
            drive,
            clock,
            chosen.sync,
            threads=backend.threads,
            loop=chosen.loop,
            needed=backend.needed,
            enforcement=enforcement if assumption is None else Undisturbed(drive.rig),
            grouping=followed and followed.grouping,
            on_quiet=on_quiet,
        )
        if assumption is None:
            return replay
        return assumption.source(replay, enforcement, window_ns=round(chosen.sync.window_ms * 1e6))

    return make


def _recorders(chosen: Config, parts: Assembly[Any]) -> list[Recorder]:
    directory, output = chosen.output.directory, chosen.output
    recorders: list[Recorder] = []
    if chosen.flight.enabled:  # first: it may be refused, and then nothing of an earlier run is to be lost
        recorders.append(FlightRecorder(chosen, parts.rig, lambda line: print(line, file=sys.stderr)))
    recorders += [
        DetectionsWriter(directory),
        DecisionsWriter(directory),
        RecordingWriter(directory, parts.rig, record_images=output.record_images, faults=parts.faults),
    ]
    if output.trace:
        recorders.append(TraceWriter(directory, parts.rig))
    return recorders


def _run_ticks(
    pipeline: Pipeline, source: Replay | AssumedSource | Live, stop: threading.Event, console: Console
) -> bool:
    """Run to the end of the drive; True when a signal ended it sooner, after the tick in progress."""
    with _progress(console) as progress, closing(pipeline.run(source)) as ticks:
        task = progress.add_task("replay", total=source.duration_s)
        first_ns: int | None = None
        refreshed = 0.0
        for tick in ticks:
            if stop.is_set():
                return True
            first_ns = tick.frames.stamp_ns if first_ns is None else first_ns
            # By hand and not too often: rich's own refresh thread would take the interpreter in the middle of a tick.
            if time.monotonic() - refreshed > _REFRESH_S:
                refreshed = time.monotonic()
                at_s = (tick.frames.stamp_ns - first_ns) * 1e-9
                progress.update(task, completed=at_s, description=f"tick {tick.frames.tick}", refresh=True)
    return stop.is_set()


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f} s"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal)


class _StopDrawingError(Exception):
    """Unwinds the drawing of a video that nobody waits for any more."""


def _draw_video(chosen: Config, stop: threading.Event, console: Console) -> None:
    """Draw the run from what it wrote, replaying the drive once more, stepped: drawing costs the ticks nothing."""
    from perception.output.video import VIDEO, render  # noqa: PLC0415 (PyAV is not for every run)

    directory = chosen.output.directory
    as_then = None if chosen.decisions is None else again.grouping(chosen.decisions, chosen.loop)
    drive, clock = _open_drive(chosen), SteppedClock()
    source = Replay(drive, clock, chosen.sync, threads=1, loop=chosen.loop, grouping=as_then)
    with suppress(_StopDrawingError), closing(source), _progress(console) as progress:
        task = progress.add_task("drawing", total=None)

        def show(drawn: int) -> None:
            if stop.is_set():
                raise _StopDrawingError
            progress.update(task, description=f"drawing frame {drawn}", refresh=drawn % 5 == 0)

        render(
            source,
            read_tracks(directory / "tracks.jsonl"),
            read_detections(directory / "detections.jsonl"),
            directory / VIDEO,
            title=chosen.replay.name if chosen.replay else "",
            progress=show,
        )


if __name__ == "__main__":
    sys.exit(main())
