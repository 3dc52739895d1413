from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from perception.errors import OutputError
from perception.output.tracks_socket import TRACKS_SOCKET, TracksSocket
from tests.output.samples import make_tracks


def connect(path: Path) -> socket.socket:
    consumer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    consumer.settimeout(5)
    consumer.connect(str(path))
    return consumer


def ticks(consumer: socket.socket) -> list[int]:
    """All that waits to be read."""
    consumer.settimeout(0)
    found: list[int] = []
    while True:
        try:
            line = consumer.recv(1 << 20)
        except BlockingIOError:
            return found
        if not line:
            return found
        found.append(json.loads(line)["tick"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / TRACKS_SOCKET


def test_each_consumer_gets_each_line_from_when_it_connected(path: Path) -> None:
    publisher = TracksSocket(path)
    publisher.publish(make_tracks(0))
    first = connect(path)
    publisher.publish(make_tracks(1))
    second = connect(path)
    publisher.publish(make_tracks(2))
    assert publisher.consumers == 2
    assert ticks(first) == [1, 2]
    assert ticks(second) == [2]
    assert publisher.dropped == 0
    publisher.close()
    assert first.recv(1) == second.recv(1) == b""  # hung up
    assert not path.exists()


def test_one_that_does_not_read_loses_whole_lines_and_the_others_none(path: Path) -> None:
    publisher = TracksSocket(path)
    deaf, reader = connect(path), connect(path)
    read = []
    for tick in range(3000):
        publisher.publish(make_tracks(tick))
        read += ticks(reader)
    assert read == list(range(3000))
    assert publisher.dropped > 0
    assert ticks(deaf) == list(range(3000 - publisher.dropped))
    publisher.publish(make_tracks(3000))  # it has caught up, and there is room again
    assert ticks(deaf) == [3000]
    publisher.close()


def test_one_that_goes_away_is_forgotten(path: Path) -> None:
    publisher = TracksSocket(path)
    leaving, staying = connect(path), connect(path)
    publisher.publish(make_tracks(0))
    leaving.close()
    for tick in (1, 2):
        publisher.publish(make_tracks(tick))
    assert publisher.consumers == 1
    assert ticks(staying) == [0, 1, 2]
    publisher.close()


def test_one_too_many_is_hung_up_on(path: Path) -> None:
    publisher = TracksSocket(path)
    consumers = []
    for tick in range(20):
        consumers.append(connect(path))
        publisher.publish(make_tracks(tick))
    assert publisher.consumers == 16
    assert consumers[15].recv(1 << 20)
    assert consumers[16].recv(1 << 20) == b""
    publisher.close()


def test_a_line_longer_than_all_room_is_dropped_and_the_consumer_stays(path: Path) -> None:
    publisher = TracksSocket(path)
    consumer = connect(path)
    publisher.publish(make_tracks(0, ids=range(3000)))
    publisher.publish(make_tracks(1))
    assert publisher.dropped == 1
    assert ticks(consumer) == [1]
    publisher.close()


def test_what_a_killed_process_left_is_replaced_and_only_owner_and_group_may_connect(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(path))
    left.close()
    publisher = TracksSocket(path)
    connect(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    publisher.close()


@pytest.mark.parametrize(("parent", "said"), [("x" * 120, "107 bytes"), ("nowhere", "cannot be written")])
def test_a_place_where_it_cannot_be_is_refused(tmp_path: Path, parent: str, said: str) -> None:
    with pytest.raises(OutputError, match=said):
        TracksSocket(tmp_path / parent / TRACKS_SOCKET)
