from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.systemd import Log, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(5)
        yield bound


def test_assignments_are_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(manager.getsockname())})
    assert notifier.notify("READY=1", "STATUS=on time")
    assert manager.recv(1000) == b"READY=1\nSTATUS=on time"
    notifier.close()


def test_an_address_of_the_abstract_namespace() -> None:
    name = f"perception-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{name}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        assert notifier.notify("WATCHDOG=1")
        assert bound.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_without_a_manager_nothing_is_said() -> None:
    notifier = Notifier({})
    assert notifier.notify("READY=1")
    notifier.close()


def test_a_manager_that_is_gone_or_does_not_listen_is_noticed(tmp_path: Path, manager: socket.socket) -> None:
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert not gone.notify("READY=1")
    gone.close()
    deaf = Notifier({"NOTIFY_SOCKET": str(manager.getsockname())})
    for _ in range(10_000):  # far more than its queue takes
        if not deaf.notify("WATCHDOG=1"):
            break
    else:
        pytest.fail("a full queue was not noticed")
    deaf.close()


def test_the_journal_gets_priorities_and_a_person_gets_words(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        journal = Log(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        journal("error", "no\nway")
        journal("info", "fine")
        elsewhere = Log(stream, {"JOURNAL_STREAM": "1:2"})
        elsewhere("warning", "late")
        elsewhere("info", "fine")
    assert path.read_text() == "<3>no | way\n<6>fine\nwarning: late\nfine\n"


def test_a_log_that_is_closed_stops_nobody() -> None:
    stream = io.StringIO()
    log = Log(stream, {})
    stream.close()
    log("error", "unheard")
