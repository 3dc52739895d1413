"""The consumers' end: each track set as a line of JSON over a Unix socket, as soon as it is published.

The socket is of type ``SOCK_SEQPACKET``: a message is one line of ``tracks.jsonl``, whole or not at all. A consumer
that does not read loses lines once the kernel's buffer for it is full, a few seconds' worth; `tick` in the line tells
it how many. To have the newest, it reads until that would block.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Final

from perception.errors import OutputError
from perception.messages import TrackSet
from perception.output.files import unwritable
from perception.output.jsonl import tracks_line

TRACKS_SOCKET: Final = "tracks.sock"
_MAX_CONSUMERS: Final = 16
_LONGEST_PATH: Final = 107


class TracksSocket:
    """Publishes track sets to all that are connected, and waits for none of them.

    `dropped` counts the lines that were not delivered, over all consumers. The owner and the group of the process may
    connect. Raises `OutputError` where the socket cannot be made; a socket that was left behind is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.dropped = 0
        self.path = path
        self._consumers: list[socket.socket] = []
        if len(bytes(path)) > _LONGEST_PATH:
            raise OutputError(
                f"{path}: a Unix socket's path has at most {_LONGEST_PATH} bytes; shorten daemon.runtime_directory"
            )
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            path.unlink(missing_ok=True)
            self._listener.bind(str(path))
            path.chmod(0o660)
            self._listener.listen(_MAX_CONSUMERS)
        except OSError as error:
            self._listener.close()
            raise unwritable(path, error) from None
        self._listener.settimeout(0)

    @property
    def consumers(self) -> int:
        """How many are connected."""
        return len(self._consumers)

    def publish(self, tracks: TrackSet) -> None:
        """Send one line to each consumer that has room for it."""
        self._let_in()
        if not self._consumers:
            return
        line = tracks_line(tracks)
        for consumer in tuple(self._consumers):
            self._send(consumer, line)

    def close(self) -> None:
        """Hang up, and remove the socket."""
        for consumer in self._consumers:
            consumer.close()
        self._consumers.clear()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):  # nobody waits, or there are no descriptors left
            while True:
                consumer, _ = self._listener.accept()
                consumer.settimeout(0)
                if len(self._consumers) < _MAX_CONSUMERS:
                    self._consumers.append(consumer)
                else:
                    consumer.close()

    def _send(self, consumer: socket.socket, line: bytes) -> None:
        try:
            consumer.send(line)
        except ConnectionError:
            self._consumers.remove(consumer)
            consumer.close()
        except OSError:  # no room, or a line longer than all the room there is
            self.dropped += 1
