"""What systemd and a service say to each other: readiness, the watchdog, a status line, and lines for the journal.

The protocol is that of sd_notify(3): assignments, a line each, in a datagram to the socket ``NOTIFY_SOCKET``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final, Literal, TextIO

Priority = Literal["error", "warning", "info"]
Tell = Callable[[Priority, str], None]
_PRIORITIES: Final[Mapping[Priority, int]] = {"error": 3, "warning": 4, "info": 6}  # syslog(3)
_SEND_S: Final = 0.2


class Notifier:
    """Tells the service manager; where there is none, nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # of the abstract namespace
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_S)

    def notify(self, *assignments: str) -> bool:
        """Send assignments such as ``READY=1``; False where the manager did not take them: send again."""
        if not self._address:
            return True
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Log:
    """One line per event: with syslog's priorities where standard error is the journal, in words elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._to_journal = _is_journal(stream, environment.get("JOURNAL_STREAM", ""))

    def __call__(self, priority: Priority, text: str) -> None:
        """Write one line; what cannot be written is lost."""
        line = " | ".join(text.splitlines())
        in_words = "" if priority == "info" else f"{priority}: "
        prefix = f"<{_PRIORITIES[priority]}>" if self._to_journal else in_words
        try:
            self._stream.write(f"{prefix}{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


def _is_journal(stream: TextIO, device_and_inode: str) -> bool:
    """Whether the journal that systemd connected is what `stream` still writes to."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device_and_inode == f"{status.st_dev}:{status.st_ino}"
