"""The computer: its system, its processors, what it lets a process with deadlines have."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from typing import Final

from perception import realtime
from perception.doctor.finding import Case, Finding

_JETPACKS: Final = {"35": "JetPack 5", "36": "JetPack 6", "38": "JetPack 7", "39": "JetPack 7"}
_NVPMODEL_S: Final = 3


def operating_system(case: Case) -> Finding:
    """The distribution, and on a Jetson what NVIDIA put on it."""
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)', case.text("etc/os-release"), re.MULTILINE)
    parts = [named.group(1) if named else platform.system(), platform.machine()]
    release = re.search(r"# R(\d+) .*REVISION: ([\d.]+)", case.text("etc/nv_tegra_release"))
    if release:
        parts.append(f"L4T {release.group(1)}.{release.group(2)} ({_JETPACKS.get(release.group(1), 'JetPack?')})")
    return Finding("system", "ok", ", ".join(parts))


def python(_: Case) -> Finding:
    """The interpreter."""
    return Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")


def processors(case: Case) -> Finding:
    """Which cores may be used."""
    model = re.search(r"^model name\s*:\s*(.+)", case.text("proc/cpuinfo"), re.MULTILINE)
    allowed, all_of_them = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    wanted = case.config.threads or 0
    what = f"{allowed} of {all_of_them} cores" if allowed < all_of_them else f"{allowed} cores"
    what += f", {model.group(1)}" if model else ""
    if wanted > allowed:
        return Finding(
            "processors", "optional", what, f"threads: {wanted} is more than there are; set threads: {allowed}"
        )
    return Finding("processors", "ok", what)


def real_time(case: Case) -> Finding:
    """Whether the daemon's thread that ticks may go before all others: tried in this thread, and given back."""
    priority = case.config.daemon.fifo_priority
    if priority is None:
        return Finding("real time", "not needed", "daemon.fifo_priority: null")
    refused = realtime.run_first(priority)
    if refused is None:
        realtime.run_as_others()
        return Finding("real time", "ok", f"SCHED_FIFO {priority} for the daemon")
    what, _, remedy = refused.partition("; ")
    return Finding("real time", "optional", f"for the daemon: {what}", remedy)


def locked_memory(case: Case) -> Finding:
    """Whether the daemon may keep its pages in memory."""
    if not case.config.daemon.lock_memory:
        return Finding("locked memory", "not needed", "daemon.lock_memory: false")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return Finding("locked memory", "ok", "no limit for the daemon")
    remedy = "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
    return Finding("locked memory", "optional", f"for the daemon: the limit is {limit >> 10} KiB", remedy)


def power_mode(case: Case) -> Finding:
    """What a Jetson may draw. Not verified on hardware."""
    if not case.text("etc/nv_tegra_release"):
        return Finding("power mode", "not needed", "not a Jetson")
    nvpmodel = shutil.which("nvpmodel")
    if nvpmodel is None:
        return Finding("power mode", "optional", "nvpmodel is not installed", "apt install nvidia-l4t-nvpmodel")
    command = [nvpmodel, "-q"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_NVPMODEL_S).stdout  # noqa: S603
    mode = re.search(r"Power Mode:\s*(\S+)", said)
    name = mode.group(1) if mode else "unknown"
    if name.startswith("MAXN"):
        return Finding("power mode", "ok", name)
    return Finding("power mode", "optional", name, "sudo nvpmodel -m 0 (nvpmodel -p --verbose lists the modes)")


def clocks(case: Case) -> Finding:
    """Whether the clocks stay where they are, so that latencies do. Not verified on hardware."""
    if not case.text("etc/nv_tegra_release"):
        return Finding("clocks", "not needed", "not a Jetson")
    gpus = sorted(path.name for path in (case.root / "sys/class/devfreq").glob("*gpu*"))
    places = {"CPU": "sys/devices/system/cpu/cpu0/cpufreq/scaling_{}_freq"}
    places |= {f"GPU {name}": f"sys/class/devfreq/{name}/{{}}_freq" for name in gpus}
    loose = [name for name, place in places.items() if case.text(place.format("min")) != case.text(place.format("max"))]
    if loose:
        return Finding("clocks", "optional", f"not fixed: {', '.join(loose)}", "sudo jetson_clocks")
    return Finding("clocks", "ok", f"fixed: {', '.join(places)}")
