"""A vehicle for tests: three cameras that do what they are told, the daemon in a process of its own, its consumer."""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from tests.drives import encode, make_camera, render
from tests.faults.commanded import STAMP

FRONT, LEFT, RIGHT = CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_RIGHT")
YAW_DEG: Final = {FRONT: 0.0, LEFT: 45.0, RIGHT: -45.0}
SIZE: Final = (160, 96)
PERIOD_S: Final = 0.1
PATIENCE_S: Final = 90.0
STOP_S: Final = 2.5  # two seconds, and what a busy machine takes to tell
_SETTLED: Final = 13  # ticks in which nothing is wrong any more: the log says so after a second
_MOMENTS: Final = 20
_SHARES: Final = {"ingest": 0.35, "preprocess": 0.1, "detect": 0.35, "nms": 0.05, "fusion": 0.1, "output": 0.05}
_WALL_CLOCK: Final = Path(__file__).with_name("wall_clock.c")


def settings(model: Path, deadline_ms: float) -> dict[str, Any]:
    """A vehicle's config; paths are within its place."""
    stages = {f"{stage}_ms": share * deadline_ms for stage, share in _SHARES.items()}
    camera = {"source": "file", "frozen_s": 1.0, "timeout_s": 1.0}
    return {
        "device": "cpu",
        "rig": "rig.yaml",
        "cameras": {name: camera | {"path": name} for name in CAMERAS},
        "detector": {"model": str(model)},
        "budget": {"end_to_end_ms": deadline_ms, **stages},
        "daemon": {"fifo_priority": None, "lock_memory": False},
        "health": {"port": 0},
    }


class Shot(NamedTuple):
    """What a camera sends: a picture captured at `stamp_ns`, `delay_s` later."""

    stamp_ns: int
    picture: bytes
    delay_s: float = 0.0


class Take(NamedTuple):
    """A picture that a camera has just taken, the `number`-th."""

    number: int
    stamp_ns: int
    picture: bytes


Shoot = Callable[[Take], list[Shot]]


def as_it_should(take: Take) -> list[Shot]:
    return [Shot(take.stamp_ns, take.picture)]


class Camera:
    """Sends a picture ten times a second; `shoot` says what becomes of each on its way."""

    def __init__(self, name: str, path: Path) -> None:
        camera = make_camera(name, SIZE, YAW_DEG[name])
        self.shoot: Shoot = as_it_should
        self.pictures = [encode(render(camera, 0.1 * n, seed=n)) for n in range(_MOMENTS)]
        self.large = encode(render(make_camera(name, (320, 192), YAW_DEG[name]), 0.0))
        self._path = path
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self.plug()

    def plug(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._listener.settimeout(0)

    def unplug(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None
        self._path.unlink(missing_ok=True)
        while self._connections:
            self._connections.pop().close()

    def send(self, shot: Shot) -> None:
        with contextlib.suppress(OSError, AttributeError):  # nobody connects, or it is unplugged
            connection, _ = self._listener.accept()  # type: ignore[union-attr]
            connection.settimeout(0)
            self._connections.append(connection)
        for connection in list(self._connections):
            try:
                connection.send(STAMP.pack(shot.stamp_ns) + shot.picture)
            except BlockingIOError:  # noqa: PERF203 (nobody reads: the picture is lost)
                continue
            except OSError:
                connection.close()
                with contextlib.suppress(ValueError):
                    self._connections.remove(connection)


@dataclass
class Window:
    """What was published and logged while a fault lasted, and how it ended."""

    sets: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    lines_after: list[str] = field(default_factory=list)
    recovered_s: float | None = None
    looked_for: list[str] = field(default_factory=list)

    def cameras(self, fate: str) -> Counter[str]:
        """In how many track sets each camera was ``missing``, ``late`` or ``skipped``."""
        of_sets = (tracks["missing"] if fate == "missing" else tracks["decision"][fate] for tracks in self.sets)
        return Counter(camera for cameras in of_sets for camera in cameras)

    @property
    def without(self) -> Counter[str]:
        """In how many track sets each camera had no part, for whatever reason."""
        return self.cameras("missing") + self.cameras("late") + self.cameras("skipped")

    @property
    def on_time(self) -> int:
        return sum(tracks["decision"]["deadline_met"] for tracks in self.sets)

    @property
    def gaps(self) -> list[int]:
        """The ticks that were not published."""
        numbers = {tracks["tick"] for tracks in self.sets}
        return sorted(set(range(min(numbers), max(numbers) + 1)) - numbers) if numbers else []

    def told(self, pattern: str) -> bool:
        """Whether there is such a line in the log; then the table has it."""
        found = next((line for line in [*self.lines, *self.lines_after] if re.search(pattern, line)), None)
        self.looked_for += [found] if found else []
        return found is not None


class Vehicle:
    """Cameras that run, and a daemon that is started when `up` is called."""

    def __init__(self, place: Path, config: dict[str, Any]) -> None:
        self.place = place
        self.config = config
        self.cameras = {name: Camera(name, place / name) for name in CAMERAS}
        self.commands = place / "commands"
        self.commands.mkdir()
        self.stuck: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.sets: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._clock_offset = place / "offset"
        self._clock_offset.write_bytes(bytes(8))
        self._write_rig()
        self._ended = threading.Event()
        self._world = threading.Thread(target=self._turn)
        self._world.start()

    # The daemon

    def up(self) -> None:
        """See that the daemon runs and that nothing is wrong with it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.settle()

    def start(self) -> None:
        """Start the daemon, and a consumer of its tracks."""
        (self.place / "vehicle.yaml").write_text(yaml.safe_dump(self.config))
        environment = os.environ | {
            "PERCEPTION_FAULTS": str(self.commands),
            "RUNTIME_DIRECTORY": str(self.place / "run"),
        }
        environment |= self._wall_clock()
        command = [sys.executable, "-m", "tests.faults.commanded", "--config", "vehicle.yaml"]
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=self.place)
        threading.Thread(target=self._read_log, args=[self.process]).start()
        threading.Thread(target=self._consume, args=[self._connect()]).start()

    def stick(self) -> None:
        """Connect another consumer, which never reads."""
        self.stuck = self._connect()

    def close(self) -> None:
        self._ended.set()
        self._world.join()
        for camera in self.cameras.values():
            camera.unplug()
        if self.stuck is not None:
            self.stuck.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self, path: str) -> tuple[int, str]:
        """What the daemon answers over HTTP."""
        port = next(m[1] for line in reversed(self.lines) if (m := re.search(r"127\.0\.0\.1:(\d+)/metrics", line)))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        assert found is not None
        return float(found[1])

    # What happens

    def suffers(
        self,
        cause: Callable[[], object],
        ticks: int,
        cure: Callable[[], object],
        until: Callable[[], bool] = lambda: True,
    ) -> Window:
        """Cause a fault, watch so many ticks and until something is so, mend it, and wait until nothing is wrong."""
        self.up()
        window, first, first_line = Window(), len(self.sets), len(self.lines)
        cause()
        self.until(lambda: len(self.sets) >= first + ticks and until())
        window.sets, window.lines = self.sets[first:], self.lines[first_line:]
        cure()
        window.recovered_s = self.settle()
        window.lines_after = self.lines[first_line + len(window.lines) :]
        return window

    def passes(self, ticks: int) -> None:
        """Wait until so many more are published."""
        first = len(self.sets)
        self.until(lambda: len(self.sets) >= first + ticks)

    def settle(self) -> float:
        """Wait until nothing is wrong; after how many seconds that began."""
        began = time.monotonic()
        first = len(self.sets)
        self.until(lambda: len(self.sets) >= first + _SETTLED and all(map(_as_it_should_be, self.sets[-_SETTLED:])))
        return max(0.0, time.monotonic() - began - _SETTLED * PERIOD_S)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process is None or self.process.poll() is None, "\n".join(self.lines)
            assert time.monotonic() < end, "\n".join(self.lines[-20:])
            time.sleep(0.05)  # some conditions ask the daemon

    def command(self, name: str) -> None:
        (self.commands / name).touch()

    def recall(self, name: str) -> None:
        (self.commands / name).unlink(missing_ok=True)

    # Its clock

    has_wall_clock: Final = shutil.which("gcc") is not None

    def step_clock(self, hours: float) -> None:
        """Step the daemon's wall clock; the file is mapped, so it is written in place."""
        with self._clock_offset.open("r+b") as file:
            file.write(np.int64(hours * 3600 * 10**9).tobytes())

    def its_time(self) -> float:
        """The wall clock's time as a process with the daemon's environment sees it."""
        show = [sys.executable, "-c", "import time; print(time.time())"]
        return float(subprocess.run(show, env=os.environ | self._wall_clock(), check=True, capture_output=True).stdout)

    def _wall_clock(self) -> dict[str, str]:
        if not self.has_wall_clock:
            return {}
        library = self.place / "wall_clock.so"
        if not library.exists():
            subprocess.run(
                ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _WALL_CLOCK, "-ldl"], check=True
            )
        return {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._clock_offset)}

    # Threads

    def _turn(self) -> None:
        """The world: ten times a second all cameras take a picture, of what moves back and forth."""
        due: list[tuple[float, int, str, Shot]] = []
        count = number = 0
        next_s = time.monotonic()
        while not self._ended.is_set():
            if time.monotonic() >= next_s:
                moment = abs((number + _MOMENTS - 1) % (2 * _MOMENTS - 2) - (_MOMENTS - 1))
                stamp_ns = time.monotonic_ns()
                for name, camera in self.cameras.items():
                    for shot in camera.shoot(Take(number, stamp_ns, camera.pictures[moment])):
                        heapq.heappush(due, (stamp_ns * 1e-9 + shot.delay_s, count, name, shot))
                        count += 1
                number, next_s = number + 1, max(next_s + PERIOD_S, time.monotonic())
            while due and due[0][0] <= time.monotonic():
                _, _, name, shot = heapq.heappop(due)
                self.cameras[name].send(shot)
            self._ended.wait(max(0.0, min([next_s, *(item[0] for item in due[:1])]) - time.monotonic()))

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as log:
            for line in log:
                self.lines.append(line.decode().rstrip())

    def _consume(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while line := connection.recv(1 << 20):
                self.sets.append(json.loads(line))

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def connected() -> bool:
            return connection.connect_ex(str(self.place / "run" / "tracks.sock")) == 0

        self.until(connected)
        return connection

    def _write_rig(self) -> None:
        width, height = SIZE
        lens = {"width": width, "height": height, "fx": width / 2, "fy": width / 2, "cx": width / 2, "cy": height / 2}
        cameras = {
            name: lens
            | {
                "mount": {
                    "translation_m": make_camera(name, SIZE, yaw).base_from_camera.translation.tolist(),
                    "yaw_deg": yaw,
                }
            }
            for name, yaw in YAW_DEG.items()
        }
        (self.place / "rig.yaml").write_text(yaml.safe_dump({"cameras": cameras}))


def _as_it_should_be(tracks: dict[str, Any]) -> bool:
    decision = tracks["decision"]
    wrong = tracks["missing"] or decision["level"] or decision["dropped"] or decision["late"] or decision["skipped"]
    return not wrong and decision["deadline_met"]


@contextlib.contextmanager
def driving(place: Path, config: dict[str, Any]) -> Iterator[Vehicle]:
    with contextlib.closing(Vehicle(place, config)) as vehicle:
        yield vehicle
