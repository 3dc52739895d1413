"""A disk that can be filled: a small tmpfs, or where mounting is not allowed, a limit on what files may hold."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SIZE: Final = 160_000_000
_PIECE: Final = 1 << 20


@dataclass
class Disk:
    """`path` is on it; `fill` leaves no room for the process `pid`, `clear` gives it back."""

    path: Path
    mounted: bool

    def fill(self, pid: int) -> None:
        if self.mounted:
            with suppress(OSError), (self.path / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(_PIECE))
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def clear(self, pid: int) -> None:
        (self.path / "ballast").unlink(missing_ok=True)
        if not self.mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield Disk(path, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
