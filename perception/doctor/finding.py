"""What a check finds, and what it looks at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from perception.config import Config
from perception.cuda.nvidia import PresentGpu

State = Literal["ok", "missing", "optional", "not needed"]
"""*missing* is what the config cannot run without; without what is *optional* it runs, only not as well."""


class Finding(NamedTuple):
    """One line: what was found, and the command that mends it."""

    name: str
    state: State
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Case:
    """A config, and the machine that is to run it; `root` is where its ``/proc``, ``/sys``, ``/dev``, ``/etc`` are."""

    config: Config
    config_name: str
    gpu: PresentGpu | None
    root: Path = Path("/")

    @property
    def gpu_part(self) -> State:
        """How much is lacking where a part of the GPU path is not there."""
        if self.config.device == "cuda":
            return "missing"
        wanted = self.config.device == "auto" and self.config.detector.runtime != "openvino"
        return "optional" if wanted and self.gpu is not None else "not needed"

    @property
    def on_gpu(self) -> bool:
        """Whether the GPU path is what the config would have."""
        return self.gpu_part != "not needed"

    @property
    def live(self) -> bool:
        """Whether it runs on cameras."""
        return self.config.replay is None

    def text(self, path: str) -> str:
        """The content of a small file of the machine, stripped; empty where there is none."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        except OSError:
            return ""


Check = Callable[[Case], Finding]


def is_there(module: str) -> bool:
    """Whether a module could be imported; its parents are, itself it is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def version_of(*distributions: str) -> str:
    """The version of the first of some distributions that is installed."""
    return next(filter(None, map(_version, distributions)), "of unknown version")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def module_version(module: str) -> str | None:
    """What a package calls its version, read from its source; None where it is not there, or does not say so."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    said = re.search(r"""^__version__\s*=\s*["']([^"']+)""", Path(spec.origin).read_text("utf-8"), re.MULTILINE)
    return said.group(1) if said else None
