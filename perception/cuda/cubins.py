"""The kernels as machine code: looked up, or compiled once and kept.

``python -m perception.cuda.cubins --arch sm_87 --out DIR`` compiles them ahead of time, on a machine without a GPU
too: with nvcc where the CUDA toolkit is installed, else with NVRTC (pip install cuda-bindings nvidia-cuda-nvrtc).
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from perception.cuda import Gpu, Kernel, Module, kernels
from perception.cuda.nvidia import compiler_for, present_gpu
from perception.cuda.resource import Resource
from perception.errors import BackendError, GpuError, PerceptionError

VEHICLES: Final = ("sm_87", "sm_110")
"""Orin and Thor; the latter from CUDA 13 on."""

_TOOLKIT: Final = Path("/usr/local/cuda/bin/nvcc")


class KernelLibrary(Resource):
    """All kernels, loaded on a GPU: `kernels` by name; `notes` say where from."""

    def __init__(self, gpu: Gpu, prebuilt: Path | None = None) -> None:
        self.kernels: dict[str, Kernel] = {}
        origins: dict[str, None] = {}
        with ExitStack() as modules:
            for source in kernels.SOURCES:
                cubin, origin = find(source, gpu.architecture, prebuilt)
                origins[origin] = None
                module = modules.enter_context(_load(gpu, source, cubin, origin))
                self.kernels |= {name: module.kernel(name) for name in kernels.kernel_names(source)}
            self._modules = modules.pop_all()
        self.notes = (f"kernels for {gpu.architecture}: {', '.join(origins)}",)

    def close(self) -> None:
        """Unload them."""
        self.kernels.clear()
        self._modules.close()


def _load(gpu: Gpu, source: Path, cubin: bytes, origin: str) -> Module:
    try:
        return gpu.module(cubin)
    except GpuError as error:
        raise GpuError(
            f"{source.name} for {gpu.architecture} ({origin}) does not load ({error}); delete it there and compile it "
            "with a CUDA toolkit that is not newer than the driver: "
            f"python -m perception.cuda.cubins --arch {gpu.architecture}"
        ) from None


class Found(NamedTuple):
    """Machine code, and where it is from."""

    cubin: bytes
    origin: str


def cache_directory() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/perception/kernels``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "perception" / "kernels"


def find(source: Path, architecture: str, prebuilt: Path | None = None) -> Found:
    """A source's machine code: from `prebuilt`, from the cache, or compiled now and kept in the cache.

    Raises `BackendError` where it is in neither and there is no compiler, or the compiler refuses.
    """
    name = file_name(source, architecture)
    for directory in (prebuilt, cache_directory()):
        if directory is not None and (directory / name).is_file():
            return Found((directory / name).read_bytes(), str(directory))
    cubin, compiler = compile_source(source, architecture)
    try:
        keep(cubin, cache_directory() / name)
    except OSError as error:
        return Found(cubin, f"compiled by {compiler}, and not kept: {error.filename}: {error.strerror}")
    return Found(cubin, f"compiled by {compiler}, and kept in {cache_directory()}")


def file_name(source: Path, architecture: str) -> str:
    """What its machine code is kept under: another source, header, option or architecture has another name."""
    return f"{source.stem}.{architecture}.{kernels.digest(source, architecture)[:16]}.cubin"


def keep(cubin: bytes, path: Path) -> None:
    """Write a file whole or not at all, whoever else does so at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(cubin)
    Path(file.name).replace(path)


def compile_source(source: Path, architecture: str) -> tuple[bytes, str]:
    """Compile a source to machine code; gives it and the compiler's name. Raises `BackendError`."""
    nvcc = _find_nvcc()
    if nvcc is not None:
        return _by_nvcc(nvcc, source, architecture), "nvcc"
    nvrtc = _find_nvrtc()
    if nvrtc is None:
        raise BackendError(
            f"{source.name} is not compiled for {architecture}, and there is no compiler here (nvcc, or pip install "
            f"{compiler_for(present_gpu())}); elsewhere: python -m perception.cuda.cubins --out DIR "
            f"--arch {architecture}, then gpu.kernels: DIR here"
        )
    return _by_nvrtc(nvrtc, source, architecture), "NVRTC"


def known_architectures() -> frozenset[str] | None:
    """What the compiler here compiles for; None where there is none, or it does not say."""
    nvcc = _find_nvcc()
    if nvcc is not None:
        done = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=False)  # noqa: S603
        return frozenset(done.stdout.split()) or None
    nvrtc = _find_nvrtc()
    if nvrtc is None:
        return None
    _, numbers = nvrtc.nvrtcGetSupportedArchs()
    return frozenset(f"sm_{number}" for number in numbers)


def _find_nvcc() -> str | None:
    return shutil.which("nvcc") or (str(_TOOLKIT) if _TOOLKIT.is_file() else None)


def _find_nvrtc() -> Any | None:
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):  # bindings without the library
        return None
    return nvrtc


def _by_nvcc(nvcc: str, source: Path, architecture: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "kernels.cubin"
        command = [nvcc, "-cubin", *kernels.compile_options(architecture), "-o", str(out), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise _refused("nvcc", source, architecture, done.stderr or done.stdout)
        return out.read_bytes()


def _by_nvrtc(nvrtc: Any, source: Path, architecture: str) -> bytes:
    _, program = nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], [])
    try:
        options = [option.encode() for option in kernels.compile_options(architecture)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != 0:
            log = bytearray(nvrtc.nvrtcGetProgramLogSize(program)[1])
            nvrtc.nvrtcGetProgramLog(program, log)
            raise _refused("NVRTC", source, architecture, log.decode(errors="replace").strip("\0"))
        cubin = bytearray(nvrtc.nvrtcGetCUBINSize(program)[1])
        nvrtc.nvrtcGetCUBIN(program, cubin)
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _refused(compiler: str, source: Path, architecture: str, log: str) -> BackendError:
    reasons = [line.strip() for line in log.splitlines() if "error" in line or "fatal" in line]
    reason = reasons[0][-200:] if reasons else "it did not say why"
    return BackendError(f"{compiler} does not compile {source.name} for {architecture}: {reason}")


def main(argv: Sequence[str] | None = None) -> int:
    """Compile all kernels ahead of time; returns the exit code."""
    parser = argparse.ArgumentParser("perception.cuda.cubins", description="Compile the CUDA kernels ahead of time.")
    parser.add_argument(
        "--arch", action="append", metavar="SM", help=f"default: that of the GPU here, and of {', '.join(VEHICLES)}"
    )
    parser.add_argument("--out", type=Path, default=cache_directory(), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        for architecture in arguments.arch or _usual():
            for source in kernels.SOURCES:
                cubin, compiler = compile_source(source, architecture)
                path = arguments.out / file_name(source, architecture)
                keep(cubin, path)
                print(f"{path}  {len(cubin)} bytes, by {compiler}")
    except (PerceptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _usual() -> list[str]:
    """That of the GPU here, if there is one, and the vehicles' that the compiler knows; warns of the others."""
    gpu, known = present_gpu(), known_architectures()
    here = [] if gpu is None else [gpu.architecture]
    vehicles = [architecture for architecture in VEHICLES if architecture not in here]
    passed_over = [] if known is None else [architecture for architecture in vehicles if architecture not in known]
    for architecture in passed_over:
        print(f"warning: {architecture} is passed over: the compiler here does not know it", file=sys.stderr)
    return [*here, *(architecture for architecture in vehicles if architecture not in passed_over)]


if __name__ == "__main__":
    sys.exit(main())
