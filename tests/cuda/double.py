"""A driver that records what it is asked to do, and does it on the CPU: it stands in for PyCUDA and cuda-python.

Memory of the GPU is memory of the host between guards, kernels are those of ``tests/kernels/grid.py``. Streams are
lazy: what is put on one is done only when somebody asks for an event behind it, a piece per question, or waits. So
whoever touches memory too early gets rubbish; and what a real driver would refuse, or corrupt, is told in
`Double.broken`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.kernels.grid import Buffer, Grid, buffer, check_guards

MS_PER_PIECE: Final = 0.25
"""How long each piece of work takes the double's GPU."""

_SYNCHRONISING: Final = frozenset({"cuStreamSynchronize", "cuMemAlloc", "cuMemFree", "cuMemHostAlloc"})
"""What no thread may do while it captures."""


class DriverError(Exception):
    """``pycuda.driver.Error``: its message begins with the call."""


class Call(NamedTuple):
    """A call of the driver, what it was about, and the thread."""

    name: str
    about: str
    thread: int


class Piece(NamedTuple):
    """Work on a stream."""

    about: str
    do: Callable[[], None]


class Queue:
    """A stream: what is still to be done, and what is being captured."""

    def __init__(self) -> None:
        self.todo: deque[Piece] = deque()
        self.captured: list[Piece] | None = None
        self.priority = 0


class Event:
    """What both kinds of events are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stream: int | None = None
        self.pending = 0
        self.at_ms: float | None = None


class Double:
    """The GPU behind both halves of the driver, `integrated` or with memory of its own.

    `broken` is what no program may do, a line each. `pieces_per_query` is how much work gets done between two looks at
    an event; with 0 the GPU hangs. A call in `failing` fails, with that reason.
    """

    def __init__(self, grid: Grid | None = None, *, integrated: bool = False) -> None:
        self.grid = grid
        self.integrated = integrated
        self.calls: list[Call] = []
        self.broken: list[str] = []
        self.pieces_per_query: int = 3
        self.failing: dict[str, str] = {}
        self.queues: dict[int, Queue] = {}
        self.contexts: dict[int, list[Any]] = {}
        self.live: list[str] = []
        self.now_ms = 0.0
        self._memory: dict[int, Buffer] = {}
        self._made = 0

    def record(self, name: str, about: str = "") -> None:
        """Note a call; raises `DriverError` where it is to fail, and where no context is current in this thread."""
        thread = threading.get_ident()
        self.calls.append(Call(name, about, thread))
        if name in self.failing:
            raise DriverError(f"{name} failed: {self.failing[name]}")
        if not self.contexts.get(thread):
            self.broken.append(f"{name}: no context is current in this thread")
            raise DriverError(f"{name} failed: invalid device context")
        if name in _SYNCHRONISING and any(queue.captured is not None for queue in self.queues.values()):
            self.broken.append(f"{name} under capture")
            raise DriverError(f"{name} failed: operation not permitted when stream is capturing")

    def names(self, *of: str) -> list[str]:
        """The calls so far by name; only `of` these, if any are given."""
        return [call.name for call in self.calls if not of or call.name in of]

    def made(self, kind: str) -> str:
        """Name a new resource."""
        self._made += 1
        self.live.append(f"{kind} {self._made}")
        return self.live[-1]

    def release(self, call: str, name: str) -> None:
        """Note that a resource was released, which it is once, under a context."""
        thread = threading.get_ident()
        self.calls.append(Call(call, name, thread))
        if name not in self.live:
            self.broken.append(f"{name} was released twice")
        elif not self.contexts.get(thread):
            self.broken.append(f"{name} was released while no context was current: PyCUDA leaks it")
        else:
            self.live.remove(name)

    def put(self, stream: int, about: str, do: Callable[[], None]) -> None:
        """Put work on a stream, or into what is captured from it."""
        queue = self.queues[stream]
        (queue.todo if queue.captured is None else queue.captured).append(Piece(about, do))

    def advance(self, stream: int, pieces: int = -1) -> None:
        """Do that much of what is on a stream; all of it, by default."""
        todo = self.queues[stream].todo
        while todo and pieces != 0:
            todo.popleft().do()
            self.now_ms += MS_PER_PIECE
            pieces -= 1

    def mark(self, event: Event, stream: int) -> None:
        """Put an event on a stream: it is pending until the stream gets there."""
        event.stream = stream
        event.pending += 1
        self.put(stream, "event", lambda: self._reach(event))

    def reached(self, event: Event) -> bool:
        """Look at an event, and let some time go by if it is pending."""
        if event.pending and event.stream is not None:
            self.advance(event.stream, self.pieces_per_query)
        return not event.pending

    def allocate(self, nbytes: int) -> int:
        """Memory full of rubbish; its address."""
        memory = buffer(nbytes, np.uint8)
        self._memory[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def free(self, pointer: int) -> None:
        """Free it, and see that nobody wrote out of its bounds."""
        check_guards(self._memory.pop(pointer))

    def at(self, pointer: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes at an address, which must be allocated."""
        for start, memory in self._memory.items():
            if start <= pointer and pointer + nbytes <= start + memory.nbytes:
                return memory[pointer - start : pointer - start + nbytes].view(np.ndarray)
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are not allocated")

    def _reach(self, event: Event) -> None:
        event.pending -= 1
        event.at_ms = self.now_ms
