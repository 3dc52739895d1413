"""The pipeline as a daemon on the vehicle: ``python -m perception.daemon --config vehicle.yaml``.

| signal | what it does |
|---|---|
| SIGTERM, SIGINT | finish the tick, complete the recordings, and exit with 0 within two seconds |
| SIGHUP | read the config again: go over to a good one between two ticks, refuse a bad one and go on with the old |
| SIGUSR1 | have the flight recorder keep the last seconds; so does ``POST /flight`` |

Going over to another config builds the pipeline anew: while that lasts nothing is published, and tracks begin afresh.
What is under `daemon` and `health` stays as it was at the start.

systemd hears READY when the first tick was on time, and from then on WATCHDOG when another one was since it last heard
it, or while the thread that ticks waits for cameras of which none gives frames: a new process would have no more.

Exit codes: 0 stopped, or the replayed drive is at its end; 1 something broke; 2 refused (one line says why).
"""

from __future__ import annotations

from perception import interrupts

if __name__ == "__main__":  # before the imports, which take a while
    interrupts.end_at_once(exit_code=0)

import argparse
import faulthandler
import fcntl
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from perception import config, realtime
from perception.assembly import Assembly, assemble_on_cameras, assemble_on_drive
from perception.config import Config
from perception.errors import ConfigError, PerceptionError
from perception.output.endpoints import Endpoints, routes
from perception.output.files import unwritable
from perception.output.health import Health
from perception.output.metrics import Metrics
from perception.output.tracks_socket import TRACKS_SOCKET, TracksSocket
from perception.systemd import Log, Notifier, Priority
from perception.ticker import Quiet, Ticker

EXIT_BROKEN: Final = 1
EXIT_REFUSED: Final = 2
_EXIT_CODES: Final = {"stopped": 0, "ended": 0, "failed": EXIT_BROKEN, "refused": EXIT_REFUSED}
_PULSE_S: Final = 0.1
_STATUS_S: Final = 1.0
_FINISH_S: Final = 0.6
_STOP_S: Final = 1.8
_REBUILD_S: Final = 60.0
_LONGEST_LOG: Final = 1000
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and turn what a user can mend into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    log = Log()
    faulthandler.enable()  # the watchdog ends what hangs with SIGABRT: the log then says where it hung
    try:
        overrides = [config.parse_override(text) for text in arguments.set]
        with closing(Signals(*_STOPS, signal.SIGHUP, signal.SIGUSR1)) as signals:
            return _run(lambda: _load(arguments.config, overrides), signals, log)
    except PerceptionError as error:
        log("error", str(error))
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("perception.daemon", description="Turn a vehicle's cameras into tracked objects.")
    add = parser.add_argument
    add("--config", default="vehicle.yaml", metavar="NAME", help="a file, or a name in configs/ (default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any key, such as health.port=9000")
    return parser


def _load(name: str, overrides: Sequence[tuple[str, Any]]) -> Config:
    chosen = config.load(name, overrides)
    if chosen.pace == "stepped":
        raise ConfigError(
            "pace: stepped is for replays that may take as long as they like; a daemon has pace: realtime"
        )
    return chosen


def _run(load: Callable[[], Config], signals: Signals, log: Log) -> int:
    chosen = load()
    with ExitStack() as resources:
        directory = _runtime_directory(chosen)
        resources.enter_context(_only_one(directory))
        tracks = TracksSocket(directory / TRACKS_SOCKET)
        resources.callback(tracks.close)
        notifier = Notifier()
        resources.callback(notifier.close)
        return Daemon(chosen, load, signals, log=log, notifier=notifier, tracks=tracks).run()


def _runtime_directory(chosen: Config) -> Path:
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    directory = chosen.daemon.runtime_directory or (Path(given) if given else chosen.output.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None
    return directory


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory; raises `ConfigError` where another daemon does."""
    path = directory / "daemon.lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"{path}: a daemon is running here, pid {file.read(20).strip()}; stop it, or give this one another "
                "daemon.runtime_directory"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _assemble(chosen: Config, while_quiet: Quiet) -> AbstractContextManager[Assembly[Any]]:
    """The parts of a config's pipeline: on its cameras, or on a drive as if that were them."""
    if chosen.replay is not None:
        return assemble_on_drive(chosen, chosen.loop)
    return assemble_on_cameras(chosen, lambda _, seconds: while_quiet(seconds))


class Signals:
    """Signals as something to wait for: no code runs when they come, however many they are."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._receiver, self._sender = socket.socketpair()
        self._sender.settimeout(0)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)

    def close(self) -> None:
        """Ignore them from now on: what is left to do is to exit."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self._receiver.close()
        self._sender.close()

    def wait(self, seconds: float) -> list[int]:
        """Those that have come, each once, waiting for one no longer than this."""
        came, _, _ = select.select([self._receiver], [], [], seconds)
        return sorted(set(self._receiver.recv(4096))) if came else []


class _LogHandler(logging.Handler):
    """Tells what the standard library's logging is given: handing a line over does not block who gives it."""

    def __init__(self, tell: Callable[[Priority, str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one line."""
        level = record.levelno
        self._tell(
            "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "info",
            record.getMessage(),
        )


class Daemon:
    """Watches over the thread that ticks, listens to signals, talks to systemd and to the log."""

    def __init__(
        self,
        chosen: Config,
        load: Callable[[], Config],
        signals: Signals,
        *,
        log: Log,
        notifier: Notifier,
        tracks: TracksSocket,
    ) -> None:
        self._chosen = chosen
        self._load = load
        self._signals = signals
        self._tracks_path = tracks.path
        self._log = log
        self._notifier = notifier
        self._lines: deque[tuple[Priority, str]] = deque(maxlen=_LONGEST_LOG)
        self._health = Health(chosen.health.stale_s)
        self._metrics = Metrics()
        self._ticker = Ticker(
            chosen, _assemble, publishers=[tracks], health=self._health, metrics=self._metrics, tell=self._tell
        )
        self._watch(tracks)
        self._fed_ns = 0
        self._announced = False
        self._rebuilding_until_s = 0.0
        self._status, self._status_at_s = "", 0.0

    def run(self) -> int:
        """Until a signal ends it, or the drive does, or what cannot be mended; returns the exit code."""
        self._listen()
        self._claim()
        endpoints = self._serve()
        self._ticker.start()
        try:
            return self._supervise()
        finally:
            if endpoints is not None:
                endpoints.close()
            self._flush()

    def _tell(self, priority: Priority, text: str) -> None:
        """Have a line logged, from any thread: writing may block, so the thread that ticks does not."""
        self._lines.append((priority, text))

    def _listen(self) -> None:
        """Have in the log, a line each, what the pipeline says of its ladder, and which thread died of what."""
        logger = logging.getLogger("perception")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(_LogHandler(self._tell))
        threading.excepthook = self._tell_of_death

    def _tell_of_death(self, died: threading.ExceptHookArgs) -> None:
        name = "?" if died.thread is None else died.thread.name
        *_, (file, line, *_) = traceback.extract_tb(died.exc_traceback)
        why = f"{died.exc_type.__name__}: {died.exc_value} ({Path(file).name}:{line})"
        self._tell("error", f"thread {name} died: {why}")

    def _flush(self) -> None:
        while self._lines:
            self._log(*self._lines.popleft())

    def _watch(self, tracks: TracksSocket) -> None:
        watch = self._metrics.watch
        watch("gauge", "perception_ready", "1 while tracks can be relied on", lambda: self._health.ready)
        watch("gauge", "perception_consumers", "Consumers connected to tracks.sock", lambda: tracks.consumers)
        watch(
            "counter", "perception_lines_dropped", "Lines that consumers did not read in time", lambda: tracks.dropped
        )
        watch(
            "counter",
            "perception_ticks_unrecorded",
            "Ticks lost to the all-day recording",
            lambda: self._ticker.unrecorded,
        )

    def _claim(self) -> None:
        """Ask the operating system for what a process with deadlines wants; what it refuses is told once."""
        wanted = self._chosen.daemon
        realtime.share_the_interpreter()
        for problem in (
            realtime.pin(wanted.cpus) if wanted.cpus else None,
            realtime.lock_memory() if wanted.lock_memory else None,
        ):
            if problem:
                self._tell("warning", problem)

    def _serve(self) -> Endpoints | None:
        if self._chosen.health.port is None:
            return None
        answers = routes(self._health, self._metrics, self._ticker.record_flight)
        return Endpoints(self._chosen.health, answers, self._tell)

    def _supervise(self) -> int:
        while self._ticker.outcome is None:
            for number in self._signals.wait(_PULSE_S):
                if number in _STOPS:
                    return self._stop(signal.Signals(number))
                if number == signal.SIGHUP:
                    self._reload()
                else:
                    self._record_flight()
            self._flush()
            self._talk_to_systemd()
        if self._ticker.outcome == "ended":
            self._tell("info", "the drive is at its end")
        return _EXIT_CODES[self._ticker.outcome]

    def _stop(self, number: signal.Signals) -> int:
        """Everything that follows has two seconds, whatever hangs."""
        last_resort = threading.Timer(_STOP_S, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        self._health.state = "stopping"
        self._notifier.notify("STOPPING=1")
        self._tell("info", f"{number.name}: stopping")
        self._flush()
        if not self._ticker.stop(_FINISH_S):
            self._tell("warning", "no tick came to an end: it is left as it is")
        return 0

    def _reload(self) -> None:
        try:
            chosen = self._load()
        except Exception as error:  # noqa: BLE001 (nothing in a file may end what publishes)
            self._tell("error", f"config refused, the old one goes on: {error}")
            return
        if chosen == self._ticker.config:
            self._tell("info", "config unchanged")
            return
        if (chosen.daemon, chosen.health) != (self._chosen.daemon, self._chosen.health):
            self._tell("warning", "daemon and health of the config take effect with the next start")
        self._tell("info", "going over to another config: nothing is published meanwhile")
        self._notifier.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._announced = False
        self._rebuilding_until_s = time.monotonic() + _REBUILD_S
        self._ticker.reload(chosen)

    def _record_flight(self) -> None:
        if not self._ticker.record_flight("SIGUSR1"):
            self._tell("warning", "SIGUSR1: there is no flight recorder running: set flight.enabled")

    def _talk_to_systemd(self) -> None:
        if self._health.state == "running":
            self._feed_the_watchdog()
        elif self._health.state == "reloading" and time.monotonic() < self._rebuilding_until_s:
            self._notifier.notify("WATCHDOG=1")
        status = self._health.status()
        if status != self._status and time.monotonic() - self._status_at_s >= _STATUS_S:
            self._status, self._status_at_s = status, time.monotonic()
            self._notifier.notify(f"STATUS={status}")

    def _feed_the_watchdog(self) -> None:
        """Where a tick was on time since it was last fed, or the thread that ticks has said that no frames come."""
        on_time_ns, quiet_ns = self._health.on_time_ns, self._health.quiet_ns
        if on_time_ns is not None and on_time_ns > self._fed_ns:
            self._fed_ns = on_time_ns
            self._announced = self._announced or self._announce()
            self._notifier.notify("WATCHDOG=1")
        elif quiet_ns is not None and quiet_ns > self._fed_ns > 0:  # before READY there is none to be fed
            self._fed_ns = quiet_ns
            self._notifier.notify("WATCHDOG=1")

    def _announce(self) -> bool:
        if not self._notifier.notify("READY=1"):
            return False
        self._tell("info", f"ready: a tick was on time; tracks: {self._tracks_path}")
        return True


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # all that matters is closed: nothing that still hangs, in a driver or a runtime, is waited for
