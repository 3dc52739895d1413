from __future__ import annotations

import threading

import pytest

from perception.ingest.cameras.mailbox import Mailbox, StaleError

MS = 1_000_000


@pytest.fixture
def mailbox() -> Mailbox[str]:
    return Mailbox(threading.Condition())


def test_it_holds_the_latest_frame_only_and_counts_the_others(mailbox: Mailbox[str]) -> None:
    for number in range(1000):
        mailbox.put(number, f"frame {number}")
    assert mailbox
    assert mailbox.take(1000, MS) == "frame 999"
    assert mailbox.overwritten == 999


def test_a_frame_is_given_once(mailbox: Mailbox[str]) -> None:
    mailbox.put(0, "frame")
    assert mailbox.take(1, MS) == "frame"
    assert not mailbox
    assert mailbox.take(1, MS) is None
    assert mailbox.overwritten == 0


def test_a_frame_older_than_asked_for_is_not_given_not_even_later(mailbox: Mailbox[str]) -> None:
    mailbox.put(5 * MS, "frame")
    with pytest.raises(StaleError, match="101 ms old, at most 100 are allowed"):
        mailbox.take(106 * MS, 100 * MS)
    assert mailbox.take(106 * MS, 1000 * MS) is None
    assert (mailbox.stale, mailbox.overwritten) == (1, 0)
    mailbox.put(6 * MS, "next")
    assert mailbox.take(106 * MS, 100 * MS) == "next"


def test_who_waits_is_woken() -> None:
    arrived = threading.Condition()
    mailbox: Mailbox[str] = Mailbox(arrived)
    taken = []

    def wait() -> None:
        with arrived:
            arrived.wait_for(lambda: bool(mailbox), timeout=10)
        taken.append(mailbox.take(0, MS))

    waiting = threading.Thread(target=wait)
    waiting.start()
    mailbox.put(0, "frame")
    waiting.join(10)
    assert taken == ["frame"]
