from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from perception.cuda import Gpu
from perception.cuda.compaction import KernelsByName
from perception.cuda.cubins import KernelLibrary
from tests.cuda.conftest import known_kernels, open_gpu
from tests.cuda.double import Double
from tests.kernels.grid import CpuGrid


class Device(NamedTuple):
    """A GPU with its kernels; `played` is the driver's double, where it is one."""

    gpu: Gpu
    kernels: KernelsByName
    played: Double | None = None


@pytest.fixture(params=["played", pytest.param("on the GPU", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The same tests, on the driver's double with its kernels on the CPU, and on a GPU where there is one."""
    if request.param == "played":
        double = Double(CpuGrid(request.getfixturevalue("launchers"), backwards=False))
        with open_gpu(double) as gpu:
            with gpu.current():
                module, known = known_kernels(gpu)
            yield Device(gpu, known, double)
            with gpu.current():
                module.close()
        assert double.broken == double.live == []
        return
    real: Gpu = request.getfixturevalue("real_gpu")
    with real.current():
        library = KernelLibrary(real)
    yield Device(real, library.kernels)
    with real.current():
        library.close()
