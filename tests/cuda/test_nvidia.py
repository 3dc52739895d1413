"""The driver's library is a small one of our own here, compiled on the spot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from perception.cuda.nvidia import PresentGpu, present_gpu

DRIVER = """
#include <cstring>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* version) { *version = 12060; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return DEVICE; }
int cuDeviceGetName(char* name, int size, int) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 8 : 7; return 0; }
}
"""


def _driver(directory: Path, *, init: int = 0, device: int = 0) -> str:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: it compiles a driver that there is no GPU behind")
    (directory / "driver.cpp").write_text(DRIVER)
    library = directory / f"libcuda-{init}-{device}.so"
    defines = [f"-DINIT={init}", f"-DDEVICE={device}"]
    subprocess.run(["g++", "-shared", "-fPIC", *defines, str(directory / "driver.cpp"), "-o", str(library)], check=True)
    return str(library)


def test_the_gpu_of_a_driver(tmp_path: Path) -> None:
    gpu = present_gpu(_driver(tmp_path))
    assert gpu == PresentGpu(name="Orin", compute_capability="8.7", cuda="12.6")
    assert str(gpu) == "Orin (compute capability 8.7)"


@pytest.mark.parametrize(("init", "device"), [(100, 0), (0, 101)])
def test_a_driver_without_a_gpu(tmp_path: Path, init: int, device: int) -> None:
    assert present_gpu(_driver(tmp_path, init=init, device=device)) is None


def test_no_driver(tmp_path: Path) -> None:
    assert present_gpu(str(tmp_path / "libcuda.so.1")) is None
