from __future__ import annotations

from collections.abc import Iterator

import pytest

from perception.cuda import Driver, Gpu, Module
from perception.cuda.compaction import KernelsByName
from perception.cuda.kernels import SOURCES, kernel_names
from tests.cuda import machines
from tests.cuda.bindings_double import BindingsDouble
from tests.cuda.double import Double
from tests.cuda.machines import Machine
from tests.cuda.pycuda_double import PycudaDouble
from tests.kernels.grid import CpuGrid, Grid, Launchers


@pytest.fixture(scope="session")
def grid(launchers: Launchers) -> Grid:
    return CpuGrid(launchers, backwards=False)


@pytest.fixture
def double() -> Double:
    return Double()


def open_gpu(double: Double, *, bindings: bool = True) -> Gpu:
    driver = Driver(PycudaDouble(double), BindingsDouble(double) if bindings else None)
    return Gpu(driver=driver)


def known_kernels(gpu: Gpu) -> tuple[Module, KernelsByName]:
    """All kernels; the double asks for no machine code."""
    module = gpu.module(b"machine code")
    return module, {name: module.kernel(name) for source in SOURCES for name in kernel_names(source)}


@pytest.fixture(params=["with cuda-python", "without"])
def gpu(double: Double, request: pytest.FixtureRequest) -> Iterator[Gpu]:
    with open_gpu(double, bindings=request.param == "with cuda-python") as opened:
        yield opened
    assert double.broken == []
    assert double.live == []


PLAYED = [
    pytest.param({"graphs": True}, id="played, graphs"),
    pytest.param({"graphs": False}, id="played, enqueued"),
    pytest.param({"graphs": True, "preprocess": "dali"}, id="played, dali"),
]


@pytest.fixture(params=[*PLAYED, *machines.ON_GPU])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    if isinstance(request.param, tuple):
        request.getfixturevalue("real_gpu")
        yield machines.here(*request.param)
        return
    grid: Grid = request.getfixturevalue("grid")
    played = machines.play(grid, monkeypatch, **request.param)
    yield played
    assert played.played is not None
    assert played.played.broken == []
    assert played.played.live == []
