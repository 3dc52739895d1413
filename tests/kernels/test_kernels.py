from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.cuda import kernels
from tests.kernels.grid import CpuGrid, Launchers, buffer, compile_source

BROKEN = """
extern "C" __global__ void reverse_without_barrier(const int* from, int* to) {
    __shared__ int all[64];
    all[threadIdx.x] = from[threadIdx.x];
    to[threadIdx.x] = all[63 - threadIdx.x];
}

extern "C" __global__ void half_at_the_barrier(int* to) {
    if (threadIdx.x < 32) __syncthreads();
    to[threadIdx.x] = 1;
}

extern "C" __global__ void one_too_far(int* to) { to[threadIdx.x + 1] = 1; }
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, launchers: object) -> Launchers:
    del launchers  # skips without a compiler
    directory = tmp_path_factory.mktemp("broken")
    source = directory / "broken.cu"
    source.write_text(BROKEN)
    return compile_source(source, directory)


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_grid_shows_a_missing_barrier(broken: Launchers, order: str) -> None:
    given, to = np.arange(64, dtype=np.int32), buffer(64, np.int32)

    CpuGrid(broken, backwards=order == "backwards").launch("reverse_without_barrier", (1, 1, 1), (64, 1, 1), given, to)

    assert not np.array_equal(to, given[::-1])


def test_grid_refuses_what_no_gpu_would_forgive(broken: Launchers) -> None:
    grid, to = CpuGrid(broken, backwards=False), buffer(64, np.int32)

    with pytest.raises(AssertionError, match="not all threads"):
        grid.launch("half_at_the_barrier", (1, 1, 1), (64, 1, 1), to)
    with pytest.raises(AssertionError, match="beyond its buffer"):
        grid.launch("one_too_far", (1, 1, 1), (64, 1, 1), to)
    with pytest.raises(AssertionError, match="wrong arguments"):
        grid.launch("one_too_far", (1, 1, 1), (64, 1, 1), np.int32(0))


def test_names_are_those_of_all_kernels() -> None:
    for source in kernels.SOURCES:
        text = source.read_text()
        assert len(kernels.kernel_names(source)) == text.count("__global__") > 0


def test_every_source_is_packaged_and_known() -> None:
    package = Path(kernels.__file__).parents[1]
    assert set(package.rglob("*.cu")) == set(kernels.SOURCES)
    included = {name for source in kernels.SOURCES for name in re.findall(r'#include "(.+)"', source.read_text())}
    assert included == {path.name for path in package.rglob("*.cuh")}


def test_digest_follows_source_header_and_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, header = tmp_path / "a.cu", tmp_path / "a.cuh"
    source.write_text("1")
    header.write_text("2")
    monkeypatch.setattr(kernels, "HEADERS", (header,))
    digests = {kernels.digest(source, "sm_87"), kernels.digest(source, "sm_110")}
    source.write_text("3")
    digests.add(kernels.digest(source, "sm_87"))
    header.write_text("4")
    digests.add(kernels.digest(source, "sm_87"))

    assert len(digests) == 4
    assert kernels.digest(source, "sm_87") in digests


def test_needs_neither_gpu_nor_compiler() -> None:
    loaded = "import sys, perception.cuda.kernels; print(*sys.modules)"
    modules: Any = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout

    assert not {"pycuda", "cuda", "tensorrt", "cv2"} & set(modules.split())
