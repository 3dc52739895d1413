from __future__ import annotations

from collections.abc import Iterator

import pytest

from perception.cuda import Gpu
from perception.cuda.cubins import KernelLibrary
from tests.kernels.gpu_grid import GpuGrid
from tests.kernels.grid import CpuGrid, Grid


@pytest.fixture(scope="session")
def gpu_grid(real_gpu: Gpu) -> Iterator[Grid]:
    with real_gpu.current():
        library, stream = KernelLibrary(real_gpu), real_gpu.stream()
    yield GpuGrid(real_gpu, stream, library.kernels)
    with real_gpu.current():
        stream.close()
        library.close()


@pytest.fixture(scope="session", params=["forwards", "backwards", pytest.param("on the GPU", marks=pytest.mark.gpu)])
def grid(request: pytest.FixtureRequest) -> Grid:
    """What runs a kernel: the same holds on the CPU, either way round, and on a GPU where there is one."""
    if request.param == "on the GPU":
        on_gpu: Grid = request.getfixturevalue("gpu_grid")
        return on_gpu
    return CpuGrid(request.getfixturevalue("launchers"), backwards=request.param == "backwards")
