"""In processes of their own: what is asked for stays with a process, and may not be given to this one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")


def run(code: str) -> list[str]:
    """The lines that a process of its own prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


def run_confined(code: str, limit: str, value: int) -> list[str]:
    """The same, unprivileged and under a limit, as a unit of systemd would have it."""
    confine = f"""
    import os, resource, threading, perception.realtime
    resource.setrlimit(resource.{limit}, ({value}, {value}))
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    """
    return run(textwrap.dedent(confine) + textwrap.dedent(code))


FIFO = """
    import os, threading
    from perception.realtime import run_first
    print(run_first(7))
    policies = [os.sched_getscheduler(0)]
    other = threading.Thread(target=lambda: policies.append(os.sched_getscheduler(0)))
    other.start(); other.join()
    print([policy & ~os.SCHED_RESET_ON_FORK for policy in policies] == [os.SCHED_FIFO, os.SCHED_OTHER])
"""


def test_real_time_priority_is_for_one_thread_only() -> None:
    told, only_this_thread = run(FIFO)
    if told != "None":
        pytest.skip(f"not to be had here: {told}")
    assert only_this_thread == "True"


def test_priority_is_given_back() -> None:
    told, during, after = run("""
    import os
    from perception.realtime import running_first
    with running_first(7) as problem:
        print(problem)
        print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)
    print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER)
    """)
    if told != "None":
        pytest.skip(f"not to be had here: {told}")
    assert (during, after) == ("True", "True")


@root_only
def test_without_the_limit_it_is_said_what_would_give_priority() -> None:
    told = run_confined(FIFO, "RLIMIT_RTPRIO", 0)[0]
    assert "LimitRTPRIO=7" in told
    assert "not permitted" in told


LOCK = """
    from perception.realtime import lock_memory
    print(lock_memory())
    data = bytearray(4_000_000)
    print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmLck")) >= 4000)
"""


def test_what_is_touched_after_locking_is_locked_too() -> None:
    told, locked = run(LOCK)
    if told != "None":
        pytest.skip(f"not to be had here: {told}")
    assert locked == "True"


@root_only
def test_under_a_limit_memory_is_not_locked_and_it_is_said_what_would() -> None:
    told, locked = run_confined(LOCK, "RLIMIT_MEMLOCK", 4 << 20)
    assert "4096 KiB" in told
    assert "LimitMEMLOCK=infinity" in told
    assert locked == "False"


def test_pinning_holds_for_threads_to_come_and_a_processor_that_is_not_there_is_refused() -> None:
    allowed = min(os.sched_getaffinity(0))
    code = f"""
        import os, threading
        from perception.realtime import pin
        print(pin([99999]))
        print(pin([{allowed}]))
        seen = []
        other = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        other.start(); other.join()
        print(seen == [{{{allowed}}}])
    """
    refused, pinned, inherited = run(code)
    assert "99999" in refused
    assert str(allowed) in refused
    assert (pinned, inherited) == ("None", "True")


def test_the_interpreter_is_shared_out_sooner() -> None:
    code = """
        import sys
        from perception.realtime import share_the_interpreter
        share_the_interpreter()
        print(sys.getswitchinterval() < 0.001)
    """
    assert run(code) == ["True"]


def test_kept_memory_costs_no_page_faults_again_on_any_thread() -> None:
    refused, faults = run("""
        import resource, threading
        import numpy as np
        from perception import realtime
        print(realtime.keep_memory())
        def six_images_a_tick():
            for _ in range(50):
                images = [np.ones((384, 640, 3), np.uint8) for _ in range(6)]
                del images
        threads = [threading.Thread(target=six_images_a_tick) for _ in range(2)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """)
    assert refused == "None"
    assert int(faults) < 1000  # of 108,000 pages that are used
