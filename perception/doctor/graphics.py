"""The GPU, and the libraries that reach it. Nothing is imported to ask for its version."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from perception import backends
from perception.config import Config
from perception.cuda import cubins, kernels
from perception.cuda.nvidia import bindings_for, compiler_for
from perception.detect.tensorrt_library import INSTALL, MODULES, TITLES, WITHOUT_RTX, Flavor, version_numbers
from perception.doctor.finding import Case, Finding, State, is_there, module_version, version_of
from perception.errors import BackendError


def gpu(case: Case) -> Finding:
    """What the driver shows."""
    if case.gpu is None:
        remedy = "" if case.gpu_part == "not needed" else "install NVIDIA's driver, or run with device: cpu"
        return Finding("GPU", case.gpu_part, "no NVIDIA GPU that a driver shows", remedy)
    version = re.search(r"\d+\.\d+(\.\d+)?", case.text("proc/driver/nvidia/version"))
    driver = f"driver {version.group()}, " if version else ""
    return Finding("GPU", "ok", f"{case.gpu}, {driver}CUDA up to {case.gpu.cuda}")


def pycuda(case: Case) -> Finding:
    """What the channels on the GPU are made with."""
    if is_there("pycuda"):
        return Finding("PyCUDA", "ok", version_of("pycuda"))
    return Finding("PyCUDA", case.gpu_part, "not installed", _for(case, "pip install -e '.[gpu]' (needs nvcc)"))


def cuda_python(case: Case) -> Finding:
    """Without it there are no CUDA graphs and no stream priorities."""
    remedy = _for(case, f"pip install {bindings_for(case.gpu)}")
    if is_there("cuda.bindings.driver"):
        version = version_of("cuda-bindings")
        if case.gpu is not None and version_numbers(version)[:1] > (case.gpu.cuda_major,):
            what = f"{version} is too new for this driver, which runs CUDA up to {case.gpu.cuda}"
            return Finding("cuda-python", case.gpu_part, what, remedy)
        return Finding("cuda-python", "ok", version)
    state: State = "optional" if case.on_gpu else "not needed"
    return Finding("cuda-python", state, "not installed: no CUDA graphs", remedy)


def compiler(case: Case) -> Finding:
    """What could compile kernels."""
    found = shutil.which("nvcc", path=None) or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found:
        return Finding("CUDA compiler", "ok", found)
    if is_there("cuda.bindings.nvrtc") and _nvrtc_version():
        return Finding("CUDA compiler", "ok", f"NVRTC {_nvrtc_version()}")
    what = "neither nvcc nor NVRTC: kernels have to be compiled elsewhere"
    return Finding("CUDA compiler", "not needed", what, _for(case, f"pip install {compiler_for(case.gpu)}"))


def _nvrtc_version() -> str | None:
    version = version_of("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")
    return version if version[0].isdigit() else None


def kernels_compiled(case: Case) -> Finding:
    """The kernels' machine code for this GPU."""
    if case.gpu is None:
        return Finding("kernels", case.gpu_part, "no GPU to compile them for")
    architecture = case.gpu.architecture
    places = [place for place in (case.config.gpu.kernels, cubins.cache_directory()) if place is not None]
    names = {source.name: cubins.file_name(source, architecture) for source in kernels.SOURCES}
    missing = [source for source, name in names.items() if not any((place / name).is_file() for place in places)]
    if not missing:
        return Finding("kernels", "ok", f"compiled for {architecture}, in {' and '.join(map(str, places))}")
    what = f"not compiled for {architecture}: {', '.join(missing)}"
    can_compile = compiler(case).state == "ok"
    state = "optional" if case.on_gpu and can_compile else case.gpu_part
    return Finding("kernels", state, what, f"python -m perception.cuda.cubins --arch {architecture}")


def tensorrt(case: Case) -> Finding:
    """The library that runs the detector on the GPU, before ONNX Runtime."""
    found = tensorrt_here(case.config)
    if found:
        return Finding("TensorRT", "ok", f"{TITLES[found[0]]} {found[1]}")
    replaced = case.on_gpu and gpu_runtime(case) == "onnxruntime"
    what = "not installed; ONNX Runtime is taken" if replaced else "not installed"
    return Finding("TensorRT", "optional" if replaced else case.gpu_part, what, _for(case, INSTALL["tensorrt"]))


def gpu_runtime(case: Case) -> Literal["tensorrt", "onnxruntime"]:
    """What would run the detector on the GPU, or should."""
    runtime, found = case.config.detector.runtime, tensorrt_here(case.config)
    if runtime == "onnxruntime":
        return "onnxruntime"
    unfit = found is None or (found[0] == "rtx" and case.gpu and case.gpu.compute_capability in WITHOUT_RTX)
    return "onnxruntime" if runtime == "auto" and unfit and "cuda" in _providers() else "tensorrt"


def tensorrt_here(config: Config) -> tuple[Flavor, str] | None:
    """The flavor that the config would take, and its version."""
    wanted = config.engine.flavor
    for flavor, modules in MODULES.items():
        for module in modules if wanted in {"auto", flavor} else ():
            if is_there(module):
                return flavor, module_version(module) or version_of(module)
    return None


def preprocessing(case: Case) -> Finding:
    """Which implementation it will be, and whether DALI is there."""
    there = is_there("nvidia.dali")
    dali = f"DALI {version_of('nvidia-dali-cuda130', 'nvidia-dali-cuda120') if there else 'is not installed'}"
    try:
        chosen = _choice(case)
    except BackendError as error:
        return Finding("preprocessing", "missing", f"{error}; {dali}", "set preprocess: auto")
    return Finding("preprocessing", "ok", f"{chosen.name}: {chosen.reason}; {dali}")


def _choice(case: Case) -> backends.Preprocessing:
    if not case.on_gpu or case.gpu is None:
        return backends.choose_preprocess(case.config.preprocess, "cpu")
    major, _, minor = case.gpu.compute_capability.partition(".")
    return backends.choose_preprocess(case.config.preprocess, "cuda", (int(major), int(minor)))


def onnxruntime_providers(case: Case) -> Finding:
    """ONNX Runtime, by the libraries of its providers."""
    if not is_there("onnxruntime"):
        wanted = case.config.detector.runtime == "onnxruntime"
        state: State = "missing" if wanted else "not needed"
        return Finding("ONNX Runtime", state, "not installed", "pip install onnxruntime")
    what = f"{version_of('onnxruntime-gpu', 'onnxruntime')}: {', '.join(['cpu', *_providers()])}"
    if case.on_gpu and gpu_runtime(case) == "onnxruntime" and "cuda" not in _providers():
        return Finding("ONNX Runtime", case.gpu_part, what, "pip install onnxruntime-gpu in its place")
    return Finding("ONNX Runtime", "ok", what)


def _providers() -> list[str]:
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return []
    names = (path.name for path in (Path(spec.origin).parent / "capi").glob("libonnxruntime_providers_*.so"))
    return sorted({name.removeprefix("libonnxruntime_providers_").removesuffix(".so") for name in names} - {"shared"})


def _for(case: Case, remedy: str) -> str:
    """A remedy only where something is the matter."""
    return remedy if case.on_gpu else ""
