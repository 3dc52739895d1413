"""The kernels through NVIDIA's own compiler, which needs no GPU: ``pytest -s tests/kernels/test_nvrtc.py`` shows what
it says of registers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from perception.cuda import kernels

ARCHITECTURES: Final = ("sm_87", "sm_90", "sm_110")  # Orin, Hopper, Thor
_RESOURCES: Final = re.compile(
    r"entry function '(?P<kernel>\w+)'"
    r".*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


@pytest.fixture(scope="session")
def nvrtc() -> Any:
    bindings = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    try:
        bindings.nvrtcVersion()
    except RuntimeError as error:  # bindings without the library
        pytest.skip(f"NVRTC is not here (pip install nvidia-cuda-nvrtc): {error}")
    return bindings


def compile_source(nvrtc: Any, source: Path, architecture: str) -> tuple[bytes, str]:
    """A source as a cubin, and what the compiler said."""
    _, program = nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], [])
    options = [option.encode() for option in (*kernels.compile_options(architecture), "--ptxas-options=-v")]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = bytearray(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, log)
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    cubin = bytearray(nvrtc.nvrtcGetCUBINSize(program)[1])
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin), log.decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", kernels.SOURCES, ids=lambda source: source.name)
def test_compiles_without_spilling(nvrtc: Any, source: Path, architecture: str) -> None:
    cubin, log = compile_source(nvrtc, source, architecture)

    assert cubin.startswith(b"\x7fELF")
    assert "warning" not in log
    found = {match["kernel"]: match for match in _RESOURCES.finditer(log)}
    assert set(found) == set(kernels.kernel_names(source))
    for name, match in sorted(found.items()):
        print(  # noqa: T201 (the figures are half the point)
            f"{architecture:>6} {name:<22} {match['registers']:>3} registers, {match['shared'] or 0:>5} bytes shared, "
            f"spilled {match['stores']} and {match['loads']} bytes"
        )
        assert match["stores"] == match["loads"] == "0"
