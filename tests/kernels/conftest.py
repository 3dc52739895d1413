from __future__ import annotations

import pytest

from tests.kernels.grid import Grid, Launchers, compile_all


@pytest.fixture(scope="session")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> Launchers:
    return compile_all(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session", params=["forwards", "backwards"])
def grid(request: pytest.FixtureRequest, launchers: Launchers) -> Grid:
    return Grid(launchers, backwards=request.param == "backwards")
