"""What NVIDIA's driver says of the GPU here, asked of the library itself: it takes no package, and makes no context."""

from __future__ import annotations

import ctypes
from typing import Final, NamedTuple

_NAME_BYTES: Final = 256
_CAPABILITY_MAJOR: Final = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, of cuda.h
_CAPABILITY_MINOR: Final = 76
_NVRTC_WITHOUT_SUFFIX: Final = 13  # the first CUDA whose packages do not end in it


class PresentGpu(NamedTuple):
    """The first GPU that the driver shows; `cuda` is the newest version of CUDA that the driver runs."""

    name: str
    compute_capability: str
    cuda: str

    @property
    def architecture(self) -> str:
        """What kernels are compiled for, such as ``sm_87``."""
        return "sm_" + self.compute_capability.replace(".", "")

    @property
    def cuda_major(self) -> int:
        """The major version of `cuda`."""
        return int(self.cuda.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def bindings_for(gpu: PresentGpu | None) -> str:
    """The cuda-python that pip is to install: one of a later CUDA asks the driver for functions that it lacks."""
    return "cuda-bindings" if gpu is None else f"'cuda-bindings=={gpu.cuda_major}.*'"


def compiler_for(gpu: PresentGpu | None) -> str:
    """The packages of NVRTC that pip is to install: what one of a later CUDA compiles the driver does not load."""
    if gpu is None:
        nvrtc = "nvidia-cuda-nvrtc"
    elif gpu.cuda_major < _NVRTC_WITHOUT_SUFFIX:
        nvrtc = f"nvidia-cuda-nvrtc-cu{gpu.cuda_major}"
    else:
        nvrtc = f"'nvidia-cuda-nvrtc=={gpu.cuda_major}.*'"
    return f"{bindings_for(gpu)} {nvrtc}"


def present_gpu(library: str = "libcuda.so.1") -> PresentGpu | None:
    """The GPU of this machine, None where there is no driver or none that it can use."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    version, device = ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, _NAME_BYTES, device):
        return None
    major, minor = (_attribute(driver, code, device) for code in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return PresentGpu(name.value.decode(errors="replace"), f"{major}.{minor}", cuda)


def _attribute(driver: ctypes.CDLL, code: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), code, device)
    return value.value
