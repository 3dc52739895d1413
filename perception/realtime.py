"""What a process with deadlines asks of its operating system.

Each function returns None when it got what it asked for, else one line that says what could not be had, why, and what
would give it: the process goes on without.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_KEPT: Final = 32 << 20  # more is not allowed; a 4K image is 25 MiB
_KEPT: Final = 1 << 30
_BLOCK, _BLOCKS = 16 << 20, 4
SHARING_S: Final = 0.0005
"""For so long may another Python thread keep the interpreter from a tick that wants it; Python's own: 5 ms."""


def share_the_interpreter() -> None:
    """Have other Python threads hand the interpreter over after half a millisecond, where the usual is five.

    A tick thread that wakes up while another one formats metrics waits for that long, whatever its priority.
    """
    sys.setswitchinterval(SHARING_S)


@contextmanager
def switching(interval_s: float) -> Iterator[None]:
    """Meanwhile a thread hands the interpreter over when another one has waited for it for so long."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(interval_s)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


def pin(cpus: Sequence[int]) -> str | None:
    """Run the calling thread, and all threads that it starts from now on, on these processors only."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        allowed = sorted(os.sched_getaffinity(0))
        return f"not pinned to processors {list(cpus)}: {error.strerror}; allowed here are {allowed}"
    return None


def lock_memory() -> str | None:
    """Keep every page that was touched in memory, so that no tick waits for the disk.

    Pages are locked as they are touched (MCL_ONFAULT): the runtimes reserve gigabytes that they never use. Under a
    limit the lock would make a later allocation fail, so it is not even tried there.
    """
    remedy = "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited, gives it"
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and not _may_lock():
        return f"memory not locked: the limit is {limit >> 10} KiB; {remedy}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return f"memory not locked: {os.strerror(ctypes.get_errno())}; {remedy}"
    return None


def keep_memory() -> str | None:
    """Keep what is freed for the next one who asks, and have some of it touched beforehand.

    By itself the C library gives large blocks back at once. Every image then lies on new pages, and each costs a page
    fault: on a virtual machine some 20 us, 180 times for 640x384 pixels. So decoding took 4 ms instead of 1, at times.
    """
    libc = ctypes.CDLL(None)
    try:
        mallopt = libc.mallopt
    except AttributeError:
        return "freed memory is given back, and images cost page faults: this C library has no mallopt; use glibc"
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1))
    if not all(mallopt(parameter, value) for parameter, value in settings):
        return "freed memory is given back, and images cost page faults: mallopt refused"
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    blocks = [libc.malloc(ctypes.c_size_t(_BLOCK)) for _ in range(_BLOCKS)]
    for block in filter(None, blocks):
        ctypes.memset(block, 1, _BLOCK)
    for block in blocks:
        libc.free(block)
    return None


def run_first(priority: int) -> str | None:
    """Schedule the calling thread, and no other, by SCHED_FIFO: before all threads without real-time priority.

    Threads that it starts do not inherit it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        return (
            f"no real-time priority {priority}: {error.strerror} (the limit is {limit}); "
            f"LimitRTPRIO={priority} in the unit, or ulimit -r {priority}, gives it"
        )
    return None


@contextmanager
def running_first(priority: int | None) -> Iterator[str | None]:
    """Meanwhile as `run_first`, which says what could not be had; not at all without a priority."""
    problem = None if priority is None else run_first(priority)
    try:
        yield problem
    finally:
        if priority is not None and problem is None:
            run_as_others()


def run_as_others() -> None:
    """Give real-time priority back."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def _may_lock() -> bool:
    """Whether the limit does not hold for this process: it has CAP_IPC_LOCK."""
    status = Path("/proc/self/status").read_bytes().splitlines()
    effective = next((line.split()[1] for line in status if line.startswith(b"CapEff:")), b"0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
