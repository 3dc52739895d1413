"""Which implementation of preprocessing is chosen, and why."""

from __future__ import annotations

from typing import Literal

import pytest

from perception import backends
from perception.backends import choose_preprocess
from perception.errors import BackendError

ORIN, THOR, HOPPER = (8, 7), (11, 0), (9, 0)


@pytest.fixture(params=[True, False], ids=["dali", "no dali"])
def has_dali(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    there = bool(request.param)
    monkeypatch.setattr(backends, "_has_dali", lambda: there)
    return there


@pytest.mark.usefixtures("has_dali")
def test_on_the_cpu_it_is_opencv() -> None:
    assert choose_preprocess("auto", "cpu").name == "opencv"


@pytest.mark.usefixtures("has_dali")
def test_on_orin_it_is_the_kernel() -> None:
    chosen = choose_preprocess("auto", "cuda", ORIN)

    assert chosen.name == "kernel"
    assert "sm_87" in chosen.reason


@pytest.mark.parametrize("capability", [THOR, HOPPER], ids=["Thor", "Hopper"])
def test_on_other_gpus_it_is_dali_where_that_is_installed(capability: tuple[int, int], *, has_dali: bool) -> None:
    chosen = choose_preprocess("auto", "cuda", capability)

    assert chosen.name == ("dali" if has_dali else "kernel")
    assert ("not installed" in chosen.reason) != has_dali


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_dali_that_is_asked_for_and_not_there_is_refused(device: Literal["cpu", "cuda"], *, has_dali: bool) -> None:
    if has_dali:
        assert choose_preprocess("dali", device, ORIN).name == "dali"
    else:
        with pytest.raises(BackendError, match="pip install nvidia-dali"):
            choose_preprocess("dali", device, ORIN)


@pytest.mark.parametrize(("wanted", "device"), [("kernel", "cpu"), ("opencv", "cuda")])
def test_what_does_not_run_on_the_device_is_refused(
    wanted: Literal["opencv", "kernel"], device: Literal["cpu", "cuda"]
) -> None:
    with pytest.raises(BackendError, match=f"{wanted} does not run on device: {device}; use preprocess: auto"):
        choose_preprocess(wanted, device, THOR if device == "cuda" else None)
