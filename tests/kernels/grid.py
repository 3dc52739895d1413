"""The kernels on the CPU: their own source, compiled by g++ with grid.h."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.cuda import kernels

_GUARD: Final = 64
_RUBBISH: Final = 0x5A
Dim = tuple[int, int, int]
Launchers = dict[str, Callable[..., bytes | None]]
"""What starts a kernel, by its name; gives what is wrong, if anything."""


class Grid(Protocol):
    """What launches kernels as cuLaunchKernel does."""

    def launch(self, name: str, grid: Dim, block: Dim, *args: Any) -> None:
        """Run a kernel to its end: arrays are passed by their address, NumPy scalars by value."""


class CpuGrid:
    """Runs kernels on the CPU; `backwards` runs the threads of a block the other way round."""

    def __init__(self, launchers: Launchers, *, backwards: bool) -> None:
        self._launchers = launchers
        self._backwards = backwards

    def launch(self, name: str, grid: Dim, block: Dim, *args: Any) -> None:
        """Run a kernel to its end: arrays are passed by their address, NumPy scalars by value."""
        values = [np.asarray(arg.ctypes.data if isinstance(arg, np.ndarray) else arg) for arg in args]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = (ctypes.c_int * len(values))(*(value.nbytes for value in values))
        dims = [(ctypes.c_uint * 3)(*dim) for dim in (grid, block)]
        error = self._launchers[name](*dims, len(values), sizes, pointers, int(self._backwards))
        assert error is None, f"{name}: {error!r}"
        for arg in args:
            check_guards(arg)


def blocks(count: int, threads: int) -> int:
    """How many blocks of so many threads it takes."""
    return -(-count // threads)


class Buffer(np.ndarray[Any, Any]):
    """An array, or part of one, in `memory` with guards at its ends."""

    memory: NDArray[np.uint8] | None

    def __array_finalize__(self, source: NDArray[Any] | None) -> None:
        self.memory = getattr(source, "memory", None)


def buffer(count: int, dtype: Any) -> Buffer:
    """An array full of rubbish, between guards that a launch finds damaged by a write out of bounds."""
    size = count * np.dtype(dtype).itemsize
    memory = np.full(_GUARD + size + _GUARD, _RUBBISH, np.uint8)
    made: Buffer = memory[_GUARD : _GUARD + size].view(dtype).view(Buffer)
    made.memory = memory
    return made


def check_guards(arg: Any) -> None:
    """Fail where a buffer was written out of its bounds."""
    memory = getattr(arg, "memory", None)
    if memory is not None:
        assert (memory[:_GUARD] == _RUBBISH).all(), "a kernel wrote before its buffer"
        assert (memory[-_GUARD:] == _RUBBISH).all(), "a kernel wrote beyond its buffer"


def compile_all(directory: Path) -> Launchers:
    """Compile every kernel; skips where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: it compiles the kernels for the CPU")
    launchers: Launchers = {}
    for source in kernels.SOURCES:
        launchers |= compile_source(source, directory)
    return launchers


def compile_source(source: Path, directory: Path) -> Launchers:
    """Compile a source as it is and load it."""
    names = kernels.kernel_names(source)
    unit, library = directory / f"{source.stem}.cpp", directory / f"{source.stem}.so"
    unit.write_text(f'#include "{source}"\n' + "".join(f"LAUNCHER({name})\n" for name in names))
    # _FORTIFY_SOURCE takes a jump from fiber to fiber for a smashed stack.
    strict = ("-Wall", "-Werror", "-Wno-unused-function")
    options = ("-std=c++17", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", *strict)
    inputs = ("-include", str(Path(__file__).with_name("grid.h")), f"-I{kernels.INCLUDE}", str(unit))
    subprocess.run(["g++", "-shared", "-fPIC", *options, *inputs, "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    launchers: Launchers = {}
    for name in names:
        launcher = loaded[f"launch_{name}"]
        launcher.restype = ctypes.c_char_p
        launchers[name] = launcher
    return launchers
