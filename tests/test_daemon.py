"""The daemon as systemd and a vehicle's operator have it: a process, its signals, its sockets."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from perception.ingest.open_drive import open_drive
from perception.output.jsonl import read_tracks
from tests.drives import write_drive
from tests.ingest.cameras.test_files import write_video
from tests.models import write_colour_detector

CAMERAS = ("CAM_FRONT", "CAM_LEFT")
PATIENCE_S = 60.0
STOP_S = 2.5  # two seconds, and what this machine takes to tell


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "d.mcap"
    return write_drive(path, cameras=CAMERAS, image_size=(160, 96), ticks=20, rate_hz=20.0).path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx", (160, 96))


@pytest.fixture
def settings(drive: Path, model: Path, tmp_path: Path) -> dict[str, Any]:
    """A config with a deadline that a busy machine keeps, and nothing asked of it that changes its scheduling."""
    stages = {"ingest": 150, "preprocess": 30, "detect": 200, "nms": 30, "fusion": 30, "output": 30}
    return {
        "device": "cpu",
        "replay": str(drive),
        "loop": 10_000,
        "budget": {"end_to_end_ms": 500, **{f"{stage}_ms": ms for stage, ms in stages.items()}},
        "detector": {"model": str(model)},
        "output": {"directory": str(tmp_path / "out")},
        "daemon": {"fifo_priority": None, "lock_memory": False, "runtime_directory": str(tmp_path / "run")},
        "health": {"port": 0},
    }


class Process:
    """A daemon under a stand-in for systemd; its config is a file that can be changed while it runs."""

    def __init__(self, place: Path, settings: dict[str, Any], patch: str = "", limit: int | None = None) -> None:
        self.place = place
        self.config = place / "vehicle.yaml"
        self.write(settings)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(place / "notify"))
        self.manager.settimeout(0)
        self.said: list[str] = []
        arguments = ["--config", str(self.config)]
        command = [sys.executable, "-m", "perception.daemon", *arguments]
        if patch:
            run = "import runpy, sys; sys.argv[0] = ''; runpy.run_module('perception.daemon', run_name='__main__')"
            command = [sys.executable, "-c", f"{patch}\n{run}", *arguments]
        environment = os.environ | {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "5000000"}

        self._stderr = (place / "log").open("wb")
        self.process = subprocess.Popen(command, stderr=self._stderr, env=environment)
        if limit is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def write(self, settings: dict[str, Any]) -> None:
        self.config.write_text(yaml.safe_dump(settings))

    def log(self) -> str:
        return (self.place / "log").read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def heard(self) -> list[str]:
        """All that it told the manager so far."""
        try:
            while True:
                self.said += self.manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return self.said

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def until_ready(self) -> None:
        self.until(lambda: "READY=1" in self.heard())

    def until_ready_again(self) -> None:
        """Until it was ready as often as it started or reloaded."""
        self.until(lambda: self.heard().count("READY=1") == self.said.count("RELOADING=1") + 1)

    def until_told(self, text: str) -> None:
        self.until(lambda: text in self.log())

    def until_ticks(self, more: int) -> None:
        """Until so many more are published in time."""
        ticks = self.health()["ticks"]
        self.until(lambda: bool(self.health()["ticks"] >= ticks + more))

    def ends(self, seconds: float = STOP_S) -> int:
        return self.process.wait(timeout=seconds)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        port = re.findall(r"127\.0\.0\.1:(\d+)/metrics", self.log())[-1]
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.ask("/healthz")[1])
        return report

    def consumer(self) -> socket.socket:
        consumer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        consumer.settimeout(PATIENCE_S)
        consumer.connect(str(self.place / "run" / "tracks.sock"))
        return consumer

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._stderr.close()
        self.manager.close()


@contextmanager
def running(place: Path, settings: dict[str, Any], *, patch: str = "", limit: int | None = None) -> Iterator[Process]:
    with closing(Process(place, settings, patch, limit)) as process:
        yield process


def changed(settings: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """The settings with some keys of some sections changed."""
    return settings | {
        name: settings.get(name, {}) | value if isinstance(value, dict) else value for name, value in sections.items()
    }


def test_from_the_start_to_sigterm(settings: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, changed(settings, daemon={"record": True})) as process:
        process.until_ready()
        first = process.said.index("READY=1")
        assert "WATCHDOG=1" not in process.said[:first]
        assert process.ask("/readyz")[0] == 200
        with process.consumer() as consumer:
            ticks = [json.loads(consumer.recv(1 << 20)) for _ in range(3)]
        assert [tick["tick"] - ticks[0]["tick"] for tick in ticks] == [0, 1, 2]
        assert ticks[0]["decision"]["deadline_met"]
        process.until(lambda: process.heard().count("WATCHDOG=1") >= 3)
        process.until(lambda: any("ladder level 0" in line for line in process.heard() if line.startswith("STATUS=")))
        assert "perception_ticks_total" in process.ask("/metrics")[1]

        process.signal(signal.SIGTERM)
        assert process.ends() == 0
        assert "STOPPING=1" in process.heard()
        log = process.log()
        assert "SIGTERM: stopping" in log
        assert "Traceback" not in log
        (recorded,) = (tmp_path / "out").iterdir()
        assert {path.name for path in recorded.iterdir()} == {
            "tracks.jsonl",
            "detections.jsonl",
            "decisions.jsonl",
            "recording.mcap",
        }
        numbers = [tracks.tick for tracks in read_tracks(recorded / "tracks.jsonl")]
        assert numbers == list(range(len(numbers)))
        assert not (tmp_path / "run" / "tracks.sock").exists()


def test_a_storm_of_signals_is_one_stop(settings: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, settings) as process:
        process.until_ready()
        end = time.monotonic() + STOP_S
        while process.process.poll() is None and time.monotonic() < end:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGINT)
            time.sleep(0.0005)
        assert process.ends(0.1) == 0
        assert process.log().count("stopping") == 1


def test_without_a_tick_on_time_it_is_never_ready_and_the_watchdog_is_not_fed(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    impossible = {"end_to_end_ms": 0.1, **{key: 0.01 for key in settings["budget"] if key != "end_to_end_ms"}}
    with running(tmp_path, settings | {"budget": impossible}) as process:
        process.until_told("late, by up to")
        process.until_ticks(10)
        assert not {"READY=1", "WATCHDOG=1"} & set(process.heard())
        assert process.ask("/readyz")[0] == 503
        process.signal(signal.SIGINT)
        assert process.ends() == 0


def test_reloading(settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    with running(tmp_path, settings) as process:
        process.until_ready()
        consumer = process.consumer()
        first = json.loads(consumer.recv(1 << 20))["tick"]
        for bad, told in (
            ({"detector": {"modle": str(model)}}, "did you mean 'model'"),  # does not load
            (changed(settings, detector={"model": str(tmp_path / "nowhere.onnx")}), "nowhere.onnx"),  # does not build
        ):
            process.write(bad)
            process.signal(signal.SIGHUP)
            process.until_told(told)
            assert process.log().count("config refused, the old one goes on") == (1 if "did" in told else 2)
            process.until_ticks(2)
            process.until_ready_again()

        process.signal(signal.SIGHUP)  # the bad one again: it is not what is running
        process.until(lambda: process.log().count("nowhere.onnx") >= 2)
        process.until_ready_again()
        process.said.clear()
        built = process.log().count("cameras: ")
        process.write(changed(settings, fusion={"max_range_m": 50.0}, health={"stale_s": 9.0}))
        process.signal(signal.SIGHUP)
        process.until_ready()
        assert process.said.index("RELOADING=1") < process.said.index("READY=1")
        assert process.log().count("cameras: ") == built + 1  # it is ready with the new one
        assert "take effect with the next start" in process.log()
        process.until_ticks(2)
        seen = [json.loads(consumer.recv(1 << 20))["tick"] for _ in range(first + 20)]
        assert 0 in seen  # it began afresh, and the consumer stayed connected

        process.signal(signal.SIGHUP)
        process.until_told("config unchanged")
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


def test_a_second_one_is_refused_and_says_who_was_first(settings: dict[str, Any], tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    with running(tmp_path / "first", settings) as first:
        first.until_ready()
        with running(tmp_path / "second", settings) as second:
            assert second.ends(PATIENCE_S) == 2
            assert second.log().count("\n") == 1
            assert f"pid {first.process.pid}" in second.log()
        first.until_ticks(2)
        first.process.kill()
        first.process.wait()
    with running(tmp_path / "third", settings) as third:  # what was killed left its lock and its socket behind
        third.until_ready()


HANG = """
import time
from {module} import {cls}
work, calls = {cls}.{method}, []
def hang(self, *arguments):
    calls.append(1)
    if len(calls) > 60:
        time.sleep(1000)
    return work(self, *arguments)
{cls}.{method} = hang
"""
FUSION_HANGS = HANG.format(module="perception.fusion.camera_fusion", cls="CameraFusion", method="update")
WORKER_HANGS = HANG.format(module="perception.nms.numpy", cls="NumpyNms", method="__call__")


def test_a_thread_that_hangs_starves_the_watchdog_and_does_not_keep_it_from_ending(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    hanging = changed(settings, daemon={"record": True}, health={"stale_s": 2.0})
    with running(tmp_path, hanging, patch=FUSION_HANGS) as process:
        process.until_ready()
        process.until(lambda: process.ask("/healthz")[0] == 503)
        fed = process.heard().count("WATCHDOG=1")
        time.sleep(0.5)
        assert process.heard().count("WATCHDOG=1") == fed
        process.signal(signal.SIGTERM)
        assert process.ends() == 0
        assert "left as it is" in process.log()
        (recorded,) = (tmp_path / "out").iterdir()
        assert not list(recorded.glob("*.partial"))


def test_a_worker_that_hangs_is_cut_off_and_does_not_keep_it_from_ending(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with running(tmp_path, settings, patch=WORKER_HANGS) as process:
        process.until_ready()
        process.until(lambda: process.health()["ticks"] > 60)
        process.until_ticks(10)
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


def test_cameras_that_never_come_keep_it_from_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    live = {key: value for key, value in settings.items() if key != "replay"} | {
        "rig": str(Path(__file__).parents[1] / "configs" / "rigs" / "front.yaml"),
        "cameras": {"CAM_FRONT": {"source": "v4l2", "device": str(tmp_path / "video9")}},
    }
    with running(tmp_path, live) as process:
        process.until_told("no frames from any camera")
        assert process.ask("/readyz")[0] == 503
        time.sleep(0.5)
        assert not {"READY=1", "WATCHDOG=1"} & set(process.heard())
        process.write(settings)
        process.signal(signal.SIGHUP)
        process.until_ready()  # it went over to the drive though no tick ever came to an end
        process.write(live)
        process.signal(signal.SIGHUP)
        process.until(lambda: process.log().count("no frames from any camera") == 2)
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


DARK = """
from pathlib import Path
from perception.ingest.cameras.av import FileStream
read = FileStream.read
FileStream.read = lambda self: None if Path({dark!r}).exists() else read(self)
"""


def test_while_no_camera_gives_frames_the_watchdog_is_fed_and_nothing_is_ready(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    lens = {"width": 96, "height": 64, "fx": 48, "fy": 48, "cx": 48, "cy": 32}
    mount = {"translation_m": [1.5, 0.0, 1.5], "yaw_deg": 0.0}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": {"CAM_FRONT": lens | {"mount": mount}}}))
    live = {key: value for key, value in settings.items() if key != "replay"} | {
        "rig": str(tmp_path / "rig.yaml"),
        "cameras": {"CAM_FRONT": {"source": "file", "path": str(write_video(tmp_path / "v.mp4", "libx264"))}},
        "health": {"port": 0, "stale_s": 1.0},
    }
    dark = tmp_path / "dark"
    with running(tmp_path, live, patch=DARK.format(dark=str(dark))) as process:
        process.until_ready()
        dark.touch()
        process.until_told("no frames from any camera")
        fed = process.heard().count("WATCHDOG=1")
        process.until(lambda: process.heard().count("WATCHDOG=1") >= fed + 10)
        assert process.ask("/readyz")[0] == 503
        dark.unlink()
        process.until(lambda: process.ask("/readyz")[0] == 200)
        assert process.heard().count("READY=1") == 1
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


def test_a_full_disk_costs_the_recording_and_no_tick(settings: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, changed(settings, daemon={"record": True}), limit=20_000) as process:
        process.until_told("not recording")
        process.until_ticks(20)
        assert process.log().count("not recording") == 1
        unrecorded = re.search(r"^perception_ticks_unrecorded_total (\S+)", process.ask("/metrics")[1], re.MULTILINE)
        assert unrecorded is not None
        assert float(unrecorded[1]) >= 20
        assert process.ask("/readyz")[0] == 200
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


def test_what_is_killed_in_mid_recording_can_be_read(settings: dict[str, Any], tmp_path: Path) -> None:
    recording = changed(settings, daemon={"record": True}, output={"record_images": True})
    with running(tmp_path, recording) as process:
        process.until_ready()
        process.until_ticks(40)
        process.process.kill()
        process.process.wait()
    (recorded,) = (tmp_path / "out").iterdir()
    tracks = list(read_tracks(recorded / "tracks.jsonl.partial"))
    assert len(tracks) >= 40
    (recorded / "cut.mcap").write_bytes((recorded / "recording.mcap.partial").read_bytes())
    assert len(list(open_drive(recorded / "cut.mcap", None).packets())) > 0


def test_a_port_that_is_taken_costs_the_metrics_and_no_tick(settings: dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with running(tmp_path, changed(settings, health={"port": port})) as process:
            process.until_ready()
            assert process.log().count(f"127.0.0.1:{port}") == 1
            with process.consumer() as consumer:
                assert select.select([consumer], [], [], PATIENCE_S)[0]
            process.signal(signal.SIGTERM)
            assert process.ends() == 0


def test_the_flight_recorder_is_asked_by_signal_and_by_http(settings: dict[str, Any], tmp_path: Path) -> None:
    flight = {"enabled": True, "directory": str(tmp_path / "flight"), "after_s": 0.2}
    with running(tmp_path, settings | {"flight": flight}) as process:
        process.until_ready()
        process.signal(signal.SIGUSR1)
        process.until(lambda: bool(list((tmp_path / "flight").glob("*/event.json"))))
        assert process.ask("/flight", "POST")[0] == 202
        process.until(lambda: len(list((tmp_path / "flight").glob("*/event.json"))) == 2)
        process.signal(signal.SIGTERM)
        assert process.ends() == 0


def test_a_drive_that_ends_ends_it(settings: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, settings | {"loop": 1, "health": {"port": None}}) as process:
        assert process.ends(PATIENCE_S) == 0
        assert "the drive is at its end" in process.log()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pace": "stepped"}, "realtime"),
        ({"replay": "nowhere.mcap"}, "nowhere.mcap"),
        ({"daemon": {"runtime_directory": "/proc/nowhere"}}, "/proc/nowhere"),
    ],
)
def test_what_cannot_run_is_refused(
    settings: dict[str, Any], tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with running(tmp_path, settings | {"health": {"port": None}} | change) as process:
        assert process.ends(PATIENCE_S) == 2
        assert process.log().startswith("error: ")
        assert process.log().count("\n") == 1
        assert told in process.log()
