from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from perception.cuda import Gpu
from perception.errors import PerceptionError
from tests.kernels.grid import Launchers, compile_all

# Tests assert behaviour, not time: a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: runs on an NVIDIA GPU, and skips where there is none; see tests/gpu")


@pytest.fixture(scope="session")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> Launchers:
    """The CUDA kernels, compiled for the CPU."""
    return compile_all(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def real_gpu() -> Iterator[Gpu]:
    """The GPU of this machine, to be used under `Gpu.current`; skips where there is none, with the reason."""
    try:
        gpu = Gpu()
    except PerceptionError as error:
        pytest.skip(f"no GPU to run on: {error}")
    with gpu:
        yield gpu
