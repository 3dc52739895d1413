"""A small pool of threads for work that has a deadline: whoever takes too long is given up on, nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

_CLOSE_S: Final = 0.5


class _State(Enum):
    IDLE = auto()
    WAITING = auto()
    RUNNING = auto()
    GIVEN_UP = auto()  # running, but nobody waits for it any more


class Workers:
    """Runs tasks first come, first served, `count` at a time.

    A running task that is given up on makes room for another at once, on a thread of its own: one that stalls or hangs
    does not take its share of the machine away from the others. `spare` threads beyond `count` are kept ready for that:
    whoever gives up is short of time, and starting one may take ten milliseconds where the machine is busy. When more
    are needed at one time they are started then, and kept. A thread that dies is replaced.
    """

    def __init__(self, count: int, name: str = "worker", spare: int = 0) -> None:
        self._count = count
        self._spare = spare
        self._name = name
        self._waiting: deque[Task[Any, Any]] = deque()
        self._running = self._given_up = 0
        self._threads: set[threading.Thread] = set()
        self._change = threading.Condition()
        self._closed = False
        with self._change:
            self._keep_up()

    def close(self) -> None:
        """Let the threads end, but wait for none that is busy for long."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            threads = list(self._threads)
        wait_until = time.monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, wait_until - time.monotonic()))

    def enqueue(self, task: Task[Any, Any]) -> None:
        """Have a task run when its turn comes."""
        with self._change:
            task.state = _State.WAITING
            self._waiting.append(task)
            self._keep_up()
            self._change.notify()

    def give_up(self, task: Task[Any, Any]) -> bool:
        """Wait for a task no longer: it is not begun any more, or runs to its end unattended. False: it is done."""
        with self._change:
            if task.state is _State.IDLE:
                return False
            if task.state is _State.WAITING:
                self._waiting.remove(task)
                task.state = _State.IDLE
            elif task.state is _State.RUNNING:
                task.state = _State.GIVEN_UP
                self._running -= 1
                self._given_up += 1
                self._keep_up()
                self._change.notify()
            return True

    def _keep_up(self) -> None:
        while len(self._threads) < self._count + max(self._spare, self._given_up):
            # Daemons: one that hangs must not keep the process from ending.
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self) -> None:
        try:
            while (task := self._next()) is not None:
                try:
                    task.run()
                except BaseException as error:  # noqa: PERF203 (it ends the thread, and its task says so)
                    task.error = error
                    raise
                finally:
                    self._finish(task)
        finally:
            with self._change:
                self._threads.discard(threading.current_thread())
                if not self._closed:
                    self._keep_up()
                    self._change.notify()

    def _next(self) -> Task[Any, Any] | None:
        with self._change:
            while not self._closed:
                if self._waiting and self._running < self._count:
                    task = self._waiting.popleft()
                    task.state = _State.RUNNING
                    self._running += 1
                    return task
                self._change.wait()
        return None

    def _finish(self, task: Task[Any, Any]) -> None:
        with self._change:
            if task.state is _State.GIVEN_UP:
                self._given_up -= 1
            else:
                self._running -= 1
            task.state = _State.IDLE
        task.finished.set()


class Task(Generic[A, R]):
    """Work that is done again and again, one at a time: started, waited for, and given up on where that takes too long.

    What `work` raises is kept in `error`, and ends nothing.
    """

    def __init__(self, workers: Workers, work: Callable[[A], R]) -> None:
        self._workers = workers
        self._work = work
        self._argument: A | None = None
        self.state = _State.IDLE
        self.finished = threading.Event()
        self.result: R | None = None
        self.error: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Whether it can be started."""
        return self.state is _State.IDLE

    def given_up(self) -> bool:
        """Whether it runs on unattended."""
        return self.state is _State.GIVEN_UP

    def start(self, argument: A) -> None:
        """Have it run with this argument; returns at once. Only when it is idle."""
        self._argument, self.result, self.error = argument, None, None
        self.finished.clear()
        self._workers.enqueue(self)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for it to be done, for ever if there is no timeout; after that it is given up on, and this is False."""
        return self.finished.wait(timeout_s) or not self._workers.give_up(self)

    def run(self) -> None:
        """Do it here and now: for the workers."""
        argument, self._argument = self._argument, None
        try:
            self.result = self._work(argument)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 (SystemExit and the like must not end a worker either)
            self.error = error
