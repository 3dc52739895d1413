from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import Disk, small_disk
from tests.faults.table import DEADLINE, cells
from tests.faults.vehicle import Vehicle, Window, driving, settings
from tests.models import write_colour_detector

Row = Callable[..., None]


@pytest.fixture(scope="session")
def deadline_ms() -> float:
    """Long enough for any machine, as this is about what happens and not about how fast."""
    return float(os.environ.get(DEADLINE, "400"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx", (160, 96))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with small_disk(tmp_path_factory.mktemp("disk")) as disk:
        yield disk


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory, model: Path, deadline_ms: float, disk: Disk) -> Iterator[Vehicle]:
    """One daemon that has to live through all that a module does to it."""
    config: dict[str, Any] = settings(model, deadline_ms)
    config["daemon"]["record"] = True
    config["output"] = {"directory": str(disk.path / "out"), "record_images": True}
    with driving(tmp_path_factory.mktemp("vehicle"), config) as vehicle:
        yield vehicle


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Row:
    """Put a row into the table of faults: what was seen, or the cells that say otherwise."""

    def record(fault: str, seen: Window | None = None, **otherwise: str) -> None:
        record_property("row", [fault, *cells(seen, **otherwise)])

    return record
