"""The daemon, with cameras and faults at a test's command: ``python -m tests.faults.commanded --config vehicle.yaml``.

All of it is the daemon's own but for three things. A camera is whoever listens on the socket that is its `path`, and
sends pictures; when it hangs up, the cable is pulled. The detector and the workers do what the directory in
``PERCEPTION_FAULTS`` asks for, by a file's name. What is tried again every so often, is so sooner.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from perception import daemon, ticker
from perception.channel import WorkerChannel
from perception.config import FileCamera
from perception.ingest import open_cameras
from perception.ingest.cameras.camera import CameraError, Shot
from perception.output import events
from perception.output.background import Background
from perception.workers import Task

COMMANDS: Final = Path(os.environ.get("PERCEPTION_FAULTS", ""))
RAISE, HANG, DIE = "raise-{}", "hang-{}", "die"
STAMP: Final = struct.Struct("<q")
"""What goes before a picture: its capture on the monotonic clock, which all processes share."""
_LARGEST: Final = 1 << 20
_WAIT_S: Final = 0.2


class SocketCamera:
    """A camera at the other end of a socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> SocketStream:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise CameraError(str(error.strerror)) from None
        connection.settimeout(_WAIT_S)
        return SocketStream(connection)


class SocketStream:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self) -> Shot | None:
        try:
            message = self._connection.recv(_LARGEST)
        except TimeoutError:
            return None
        arrival_ns = time.monotonic_ns()
        if not message:
            raise CameraError("unplugged")
        (stamp_ns,) = STAMP.unpack_from(message)
        return Shot(message[STAMP.size :], stamp_ns, arrival_ns)

    def close(self) -> None:
        self._connection.close()


class FaultyRequest:
    """An inference request of a camera, which fails or does not return for as long as that is asked for."""

    def __init__(self, request: Any, camera: str) -> None:
        self._request = request
        self._raise, self._hang = COMMANDS / RAISE.format(camera), COMMANDS / HANG.format(camera)
        self.input = request.input

    def submit(self) -> None:
        self._request.submit()

    def collect(self) -> Any:
        outputs = self._request.collect()
        if self._raise.exists():
            raise RuntimeError("the runtime failed")
        while self._hang.exists():
            time.sleep(0.01)
        return outputs

    def cancel(self) -> None:
        self._request.cancel()


def open_camera(config: FileCamera, *_: Any) -> SocketCamera:
    return SocketCamera(config.path)


def make_channel(self: WorkerChannel, camera: str, *, request: Any, **parts: Any) -> None:
    _make_channel(self, camera, request=FaultyRequest(request, camera), **parts)


def run_task(self: Task[Any, Any]) -> None:
    if (COMMANDS / DIE).exists():
        (COMMANDS / DIE).unlink(missing_ok=True)
        raise MemoryError("no memory for a worker")
    _run_task(self)


_make_channel, _run_task = WorkerChannel.__init__, Task.run

if __name__ == "__main__":
    vars(open_cameras)["open_camera"] = open_camera
    vars(ticker)["Background"] = partial(Background, retry_s=1.0)
    WorkerChannel.__init__ = make_channel  # type: ignore[method-assign]
    Task.run = run_task  # type: ignore[method-assign]
    events._AGAIN_NS = 10**9  # type: ignore[misc]
    code = daemon.main()
    sys.stderr.flush()
    os._exit(code)
