"""The CUDA kernels' sources and how they are compiled; nothing here needs a GPU or a compiler."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

import numpy as np

_PERCEPTION: Final = Path(__file__).parents[1]
INCLUDE: Final = Path(__file__).parent
"""Where the sources find ``candidate.cuh``."""

SOURCES: Final = (
    _PERCEPTION / "preprocess" / "letterbox.cu",
    _PERCEPTION / "detect" / "heads.cu",
    INCLUDE / "select.cu",
    _PERCEPTION / "nms" / "nms.cu",
)
HEADERS: Final = (INCLUDE / "candidate.cuh",)

OPTIONS: Final = ("-std=c++17", "-fmad=false")
"""For nvcc and NVRTC alike. Results must round as on the CPU, which a fused multiply-add does not."""

MOST_CANDIDATES: Final = 16384
"""The largest ``nms.max_candidates`` that nms.cu can take."""

CANDIDATE: Final = np.dtype([("box", np.float32, 4), ("score", np.float32), ("label", np.int32)])
"""``Candidate`` of candidate.cuh: what the kernels hand over, in pixels of the model's input."""

ATTRIBUTES: Final = np.dtype(
    [
        ("centre", np.float32, 2),
        ("depth_over_focal", np.float32),
        ("depth_std", np.float32),
        ("size", np.float32, 3),
        ("alpha", np.float32),
    ]
)
"""``Attributes`` of heads.cu: a row of `messages.Attributes`."""

LETTERBOX: Final = np.dtype(
    [
        *((name, np.int32) for name in ("width", "height", "pitch", "input_width", "input_height")),
        *((name, np.int32) for name in ("resized_width", "resized_height", "left", "top", "rgb", "pad_value")),
        ("gain", np.float32, 3),
        ("bias", np.float32, 3),
    ]
)
"""``Letterbox`` of letterbox.cu, a kernel argument by value."""


def kernel_names(source: Path) -> tuple[str, ...]:
    """The kernels of a source, in its order."""
    return tuple(re.findall(r'extern "C" __global__ void (\w+)\(', source.read_text(encoding="utf-8")))


def compile_options(architecture: str) -> tuple[str, ...]:
    """The options to compile a source with for an architecture such as ``sm_87``, by nvcc or NVRTC."""
    return (*OPTIONS, f"-arch={architecture}", f"-I{INCLUDE}")


def digest(source: Path, architecture: str) -> str:
    """A SHA-256 of all that a compiled source follows from, but the compiler: the key to keep it under."""
    parts = [*OPTIONS, architecture, *(path.read_text(encoding="utf-8") for path in (source, *HEADERS))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
