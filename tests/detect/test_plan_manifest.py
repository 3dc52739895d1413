from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.detect.manifest import FileHash, Golden, GoldenOutput, manifest_path, write_manifest
from perception.detect.plan_manifest import (
    Hardware,
    Layer,
    Parity,
    Place,
    PlanManifest,
    TensorInfo,
    mismatch,
    read_plan_manifest,
)
from perception.errors import ModelError
from perception.hashing import sha256

ORIN = Hardware(name="Orin", compute_capability="8.7")
NANO = Hardware(name="Orin Nano", compute_capability="8.7")
THOR = Hardware(name="Thor", compute_capability="11.0")
ONNX = "ab" * 32
SETTINGS: dict[str, bool | int | str | None] = {"version_compatible": False, "hardware_compatible": "none"}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "m.plan"
    path.write_bytes(b"an engine")
    return path


def manifest(plan: Path, **changes: Any) -> PlanManifest:
    described: dict[str, Any] = {
        "plan": FileHash(name=plan.name, sha256=sha256(plan)),
        "bytes": 9,
        "onnx": FileHash(name="m.onnx", sha256=ONNX),
        "metadata": {"names": '["car"]'},
        "flavor": "tensorrt",
        "tensorrt": "10.3.0",
        "cuda": "12.6",
        "gpu": ORIN,
        "settings": SETTINGS,
        "inputs": (tensor("images"),),
        "outputs": (tensor("boxes"),),
        "layers": (),
        "quantised": (),
        "quantisers": (),
        "build_s": 2.5,
        "golden": Parity(deviation=0.01, note="verified on Orin"),
    }
    return PlanManifest(**{**described, **changes})


def place(tensorrt: str = "10.3.0", gpu: Hardware | None = ORIN, **settings: bool | str) -> Place:
    return Place(ONNX, "tensorrt", tensorrt, gpu, {**SETTINGS, **settings})


def tensor(name: str, kind: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, type=kind, shape=(1, 8, 4, 4))


def layer(name: str, nodes: tuple[str, ...], reads: str, writes: str, weights: str | None = None) -> Layer:
    inputs, outputs = ((tensor(*text.split(":")),) for text in (reads, writes))
    return Layer(name=name, kind="any", nodes=nodes, inputs=inputs, outputs=outputs, weights=weights, tactic="")


def test_a_manifest_comes_back_as_it_was(plan: Path) -> None:
    written = manifest(plan, layers=(layer("c", ("Conv", "q"), "a:int8", "b:int8", "int8"),))
    write_manifest(written, plan)
    assert manifest_path(plan).name == "m.manifest.json"
    assert read_plan_manifest(plan) == written


def test_what_is_no_manifest_is_refused_with_the_remedy(plan: Path) -> None:
    manifest_path(plan).write_text('{"plan": {"name": "m.plan"}}')
    with pytest.raises(ModelError, match=r"m\.manifest\.json: no manifest: plan\.sha256.*build the plan again"):
        read_plan_manifest(plan)


def test_a_plan_in_its_place(plan: Path) -> None:
    assert mismatch(manifest(plan), plan, place()) is None


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [("10.3.0", "10.7.0", True), ("10.3.0", "11.4.1", True), ("10.7.0", "10.3.0", False), ("10.3.0", "12.0", False)],
)
def test_a_version_compatible_plan_runs_on_later_versions(plan: Path, built: str, here: str, *, fits: bool) -> None:
    settings = {**SETTINGS, "version_compatible": True}
    told = manifest(plan, tensorrt=built, settings=settings)
    assert (mismatch(told, plan, place(here, version_compatible=True)) is None) == fits
    assert mismatch(manifest(plan, tensorrt=built), plan, place(here)) is not None


@pytest.mark.parametrize(
    ("level", "gpu", "fits"),
    [
        ("none", NANO, False),
        ("same_compute_capability", NANO, True),
        ("same_compute_capability", THOR, False),
        ("ampere_plus", THOR, True),
        ("ampere_plus", None, False),
    ],
)
def test_a_hardware_compatible_plan_runs_on_other_gpus(
    plan: Path, level: str, gpu: Hardware | None, *, fits: bool
) -> None:
    told = manifest(plan, settings={**SETTINGS, "hardware_compatible": level})
    assert (mismatch(told, plan, place(gpu=gpu, hardware_compatible=level)) is None) == fits


def test_a_plan_built_without_a_gpu_is_not_for_a_certain_one(plan: Path) -> None:
    for gpu in (ORIN, THOR, None):
        assert mismatch(manifest(plan, gpu=None), plan, place(gpu=gpu)) is None


def test_what_stayed_out_of_int8_and_what_stayed_by_itself(plan: Path) -> None:
    told = manifest(
        plan,
        quantised=("first", "second", "third"),
        quantisers=("q0", "dq0", "q1", "dq1", "dq2"),
        layers=(
            layer("at the input", ("q0",), "images:float32", "a:int8"),
            layer("conv 1", ("first", "dq0"), "a:int8", "b:float32", "int8"),
            layer("epilogue", ("first", "q1"), "b:float32", "c:int8"),
            layer("alone", ("dq1",), "c:int8", "d:float32"),
            layer("conv 2", ("second",), "d:float32", "e:float32", "float32"),
            layer("weights only", ("third",), "e:float32", "f:int8", "int8"),
            layer("copy", (), "f:int8", "g:int8"),
            layer("at the output", ("dq2",), "g:int8", "boxes:float32"),
        ),
    )
    assert told.not_in_int8() == ("second", "third")
    assert [unfused.name for unfused in told.unfused()] == ["alone"]
    assert "1 of 3 quantised layers in INT8" in told.line()


def test_a_residual_need_not_be_int8_for_the_convolution_to_be() -> None:
    fused = layer("conv", ("Conv", "Add"), "a:int8", "b:float32", "int8")
    assert fused.model_copy(update={"inputs": (*fused.inputs, tensor("shortcut"))}).in_int8
    assert not fused.model_copy(update={"inputs": (tensor("shortcut"), *fused.inputs)}).in_int8


def test_how_far_golden_outputs_are_off() -> None:
    outputs = (
        GoldenOutput(name="a", indices=(0, 3), values=(1.0, 2.0), std=2.0),
        GoldenOutput(name="b", indices=(0,), values=(5.0,), std=10.0),
    )
    golden = Golden(seed=1, shape=(1, 3, 2, 2), outputs=outputs)
    said = {"a": np.array([[1.0, 0], [0, 2.0]]), "b": np.array([5.0])}
    assert golden.deviation(said) == 0
    assert golden.deviation({**said, "a": np.array([3.0, 0, 0, 4.0])}) == pytest.approx(1)
    assert golden.deviation({**said, "b": np.array([6.0])}) == pytest.approx(0.1)
    for wrong in ({"a": said["a"]}, {**said, "a": np.zeros(2)}, {**said, "b": np.array([np.nan])}):
        assert golden.deviation(wrong) == float("inf")
    assert golden.image().shape == (1, 3, 2, 2)


def test_where_boxes_and_scores_share_an_output_each_value_has_a_measure_of_its_own() -> None:
    one = GoldenOutput(name="a", indices=(0, 1, 2, 3), values=(300.0, 0.2, 90.0, 0.4), std=100.0)
    each = one.model_copy(update={"stds": (100.0, 0.1, 100.0, 0.1)})
    blind = {"a": np.array([300.0, 0.0, 90.0, 0.0])}
    assert Golden(seed=1, shape=(1, 3, 2, 2), outputs=(one,)).deviation(blind) < 0.01
    assert Golden(seed=1, shape=(1, 3, 2, 2), outputs=(each,)).deviation(blind) == pytest.approx((20 / 4) ** 0.5)
