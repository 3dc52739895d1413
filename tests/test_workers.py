from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from perception.workers import Task, Workers

LONG_S = 10.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2, "test")
    yield workers
    workers.close()


def same(n: int) -> int:
    return n


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + LONG_S
    while not holds() and time.monotonic() < until:
        time.sleep(0.001)
    return holds()


def stalling(workers: Workers) -> tuple[Task[int, bool], threading.Event, threading.Event]:
    """A task that runs until it is let go: with what tells that it has begun, and what lets it go."""
    begun, go_on = threading.Event(), threading.Event()

    def stall(_: int) -> bool:
        begun.set()
        return go_on.wait()

    return Task(workers, stall), begun, go_on


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test"]


def test_tasks_run_and_give_what_they_return(workers: Workers) -> None:
    tasks: list[Task[int, int]] = [Task(workers, lambda n: n * n) for _ in range(5)]
    for round_ in range(20):
        for n, task in enumerate(tasks):
            task.start(round_ + n)
        for n, task in enumerate(tasks):
            assert task.wait(LONG_S)
            assert task.result == (round_ + n) ** 2
            assert task.idle


def test_so_many_run_at_once_and_no_more_first_come_first_served(workers: Workers) -> None:
    stalled = [stalling(workers) for _ in range(4)]
    for task, _, _ in stalled:
        task.start(0)
    assert stalled[0][1].wait(LONG_S)
    assert stalled[1][1].wait(LONG_S)
    assert not stalled[2][1].wait(0.05)
    stalled[0][2].set()
    assert stalled[2][1].wait(LONG_S)
    assert not stalled[3][1].is_set()
    for _, _, go_on in stalled:
        go_on.set()


def test_a_task_that_raises_keeps_its_error_and_can_be_started_again(workers: Workers) -> None:
    task: Task[int, int] = Task(workers, lambda n: 1 // n)
    task.start(0)
    assert task.wait(LONG_S)
    assert isinstance(task.error, ZeroDivisionError)
    task.start(1)
    assert task.wait(LONG_S)
    assert task.result == 1
    assert task.error is None


def test_one_that_stalls_and_is_given_up_on_makes_room_for_another(workers: Workers) -> None:
    stalled = [stalling(workers) for _ in range(2)]
    for task, begun, _ in stalled:
        task.start(0)
        assert begun.wait(LONG_S)
        assert not task.wait(0.001)
        assert task.given_up()
    quick = [Task(workers, same) for _ in range(4)]
    for n, other in enumerate(quick):
        other.start(n)
    assert all(other.wait(LONG_S) for other in quick)
    for task, _, go_on in stalled:
        go_on.set()
        assert eventually(lambda task=task: task.idle)  # type: ignore[misc]


def test_threads_do_not_pile_up(workers: Workers) -> None:
    for _ in range(20):
        task, begun, go_on = stalling(workers)
        task.start(0)
        assert begun.wait(LONG_S)
        assert not task.wait(0)
        go_on.set()
        assert eventually(lambda task=task: task.idle)  # type: ignore[misc]
    assert len(threads()) == 3


def test_giving_up_starts_no_thread_as_long_as_there_are_spare_ones() -> None:
    workers = Workers(1, "test", spare=2)
    try:
        before = threads()
        assert len(before) == 3
        stalled = [stalling(workers) for _ in range(2)]
        for task, begun, _ in stalled:
            task.start(0)
            assert begun.wait(LONG_S)
            assert not task.wait(0)
        quick: Task[int, int] = Task(workers, same)
        quick.start(1)
        assert quick.wait(LONG_S)
        assert threads() == before
        for _, _, go_on in stalled:
            go_on.set()
    finally:
        workers.close()


def test_one_that_no_worker_had_time_for_is_not_begun_any_more(workers: Workers) -> None:
    stalled = [stalling(workers) for _ in range(3)]
    for task, _, _ in stalled:
        task.start(0)
    waiting, begun, _ = stalled[2]
    assert not waiting.wait(0)
    assert waiting.idle
    for _, _, go_on in stalled[:2]:
        go_on.set()
    assert all(task.wait(LONG_S) for task, _, _ in stalled[:2])
    assert not begun.is_set()


def test_what_ends_other_threads_ends_no_worker(workers: Workers) -> None:
    task, begun, go_on = stalling(workers)
    task.start(0)
    assert begun.wait(LONG_S)
    before = threads()
    (busy,) = (thread for thread in before if thread.ident in _running_in(stalling))
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(busy.ident or 0), ctypes.py_object(SystemExit))
    go_on.set()
    assert task.wait(LONG_S)
    assert isinstance(task.error, SystemExit)
    assert threads() == before


def _running_in(function: Callable[..., object]) -> list[int]:
    """The threads that are somewhere within a function of this file."""
    found = []
    for ident, innermost in sys._current_frames().items():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code in function.__code__.co_consts:
                found.append(ident)
            frame = frame.f_back
    return found


class Deadly(Task[int, int]):
    def run(self) -> None:
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_replaced(workers: Workers) -> None:
    before = threads()
    deadly = [Deadly(workers, same) for _ in range(3)]
    for n, task in enumerate(deadly):
        task.start(n)
    assert all(task.wait(LONG_S) for task in deadly)
    quick = [Task(workers, same) for _ in range(5)]
    for n, other in enumerate(quick):
        other.start(n)
    assert all(other.wait(LONG_S) for other in quick)
    assert eventually(lambda: len(threads()) == 2)
    assert set(threads()) != set(before)


def test_closing_waits_for_nobody_who_hangs() -> None:
    workers = Workers(1, "hanging")
    task, begun, go_on = stalling(workers)
    task.start(0)
    assert begun.wait(LONG_S)
    workers.close()
    assert not go_on.is_set()
    go_on.set()
