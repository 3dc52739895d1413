"""TensorRT or TensorRT for RTX: which of the two is at hand is settled here and nowhere else. Their API is the same."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from perception.errors import BackendError

Flavor = Literal["tensorrt", "rtx"]

TITLES: Final[dict[Flavor, str]] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
MODULES: Final[dict[Flavor, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),  # the second is all that there is in the wheels by themselves
}
INSTALL: Final[dict[Flavor, str]] = {
    "tensorrt": "on a Jetson it comes with JetPack (apt install python3-libnvinfer), elsewhere from NVIDIA",
    "rtx": "pip install -e '.[rtx]'",
}
WITHOUT_RTX: Final = ("8.7", "9.0")
"""The compute capabilities that TensorRT for RTX has no code for: Orin, and Hopper."""

_LEAST: Final[dict[Flavor, tuple[int, int]]] = {"tensorrt": (10, 3), "rtx": (1, 7)}

Sink = Callable[[str, str], None]
"""Takes a message of the library: its severity (ERROR, WARNING, INFO, VERBOSE ...) and its text."""


class Library(NamedTuple):
    """The Python module of one flavor, and which version it is."""

    flavor: Flavor
    module: Any
    version: str

    @property
    def title(self) -> str:
        """As a user knows it."""
        return f"{TITLES[self.flavor]} {self.version}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its version, to compare."""
        return version_numbers(self.version)

    def logger(self, sink: Sink) -> Any:
        """A logger of the library, for `sink` to take down what it says."""
        base = self.module.ILogger

        class Logger(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)  # super() would not reach the C++ part

            def log(self, severity: Any, message: str) -> None:
                sink(severity.name, message)

        return Logger()


def load_library(wanted: Literal["auto", "tensorrt", "rtx"] = "auto") -> Library:
    """Import the wanted flavor; auto is TensorRT, or TensorRT for RTX where only that is installed.

    Raises `BackendError` for one that is not there, or too old.
    """
    flavors: tuple[Flavor, ...] = ("tensorrt", "rtx") if wanted == "auto" else (wanted,)
    for flavor in flavors:
        for name in MODULES[flavor]:
            module = _import(name)
            if module is not None:
                return _checked(Library(flavor, module, str(module.__version__)))
    missing = "; ".join(f"{TITLES[flavor]} is not installed: {INSTALL[flavor]}" for flavor in flavors)
    raise BackendError(missing)


def version_numbers(version: str) -> tuple[int, ...]:
    """A version as numbers to compare: 10.16.1.11 as (10, 16, 1, 11)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _import(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise BackendError(f"{name} is installed, but not {error.name}, which it needs: install that too") from None
    except ImportError as error:  # a library that the loader does not find, named in the message
        raise BackendError(f"{name} is installed but does not load: {error}") from None


def _checked(library: Library) -> Library:
    least = _LEAST[library.flavor]
    if library.numbers < least:
        needed = ".".join(map(str, least))
        raise BackendError(f"{library.title} is too old; expected {needed} or later: {INSTALL[library.flavor]}")
    return library
