from __future__ import annotations

from pathlib import Path

import pytest

from engines import inspect
from perception.detect.manifest import FileHash, manifest_path, write_manifest
from perception.detect.plan_manifest import Hardware, Layer, Parity, PlanManifest, TensorInfo
from perception.hashing import sha256


def _tensor(name: str, kind: str) -> TensorInfo:
    return TensorInfo(name=name, type=kind, shape=(1, 16, 32, 56))


def _layer(nodes: tuple[str, ...], reads: str, writes: str, weights: str | None) -> Layer:
    inputs, outputs = ((_tensor("x", kind),) for kind in (reads, writes))
    name, kind = f"layer of {nodes[0]}", "convolution" if weights else "pointwise"
    return Layer(name=name, kind=kind, nodes=nodes, inputs=inputs, outputs=outputs, weights=weights, tactic="t")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan with one layer in INT8, one that should be, and a Q that stayed by itself."""
    path = tmp_path / "detector.plan"
    path.write_bytes(bytes(2_500_000))
    manifest = PlanManifest(
        plan=FileHash(name=path.name, sha256=sha256(path)),
        bytes=2_500_000,
        onnx=FileHash(name="detector.int8.onnx", sha256="ab" * 32),
        metadata={},
        flavor="tensorrt",
        tensorrt="10.3.0",
        cuda="12.6",
        gpu=Hardware(name="Orin", compute_capability="8.7"),
        settings={"optimization_level": 3},
        inputs=(_tensor("images", "float32"),),
        outputs=(_tensor("boxes", "float32"),),
        layers=(
            _layer(("/stem/Conv", "dq", "dq_w"), "int8", "int8", "int8"),
            _layer(("/head/Conv",), "float32", "float32", "float32"),
            _layer(("alone",), "float32", "int8", None),
        ),
        quantised=("/stem/Conv", "/head/Conv"),
        quantisers=("dq", "dq_w", "alone"),
        build_s=41.2,
        golden=Parity(deviation=0.03, note="verified on Orin"),
    )
    write_manifest(manifest, path)
    return path


def test_layers_and_what_they_compute_in(
    plan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert inspect.main([str(plan)]) == 0
    told = capsys.readouterr().out
    rows = [line.split() for line in told.splitlines()]
    assert ["convolution", "int8", "int8", "1x16x32x56", "2", "/stem/Conv"] in rows
    assert ["convolution", "float32", "float32", "1x16x32x56", "/head/Conv"] in rows
    assert ["pointwise", "float32", "int8", "1x16x32x56", "1", "layer", "of", "alone"] in rows
    for told_of in (
        "detector.plan, 2.50 MB, built in 41.2 s",
        "TensorRT 10.3.0 plan of detector.int8.onnx (abababab), built for Orin (8.7)",
        "1 of 2 quantised layers in INT8, CUDA 12.6",
        "3, of which 1 compute in INT8",
        "not INT8  /head/Conv",
        "unfused   layer of alone",
        "verified on Orin",
        "images float32 1x16x32x56",
    ):
        assert told_of in told


def test_a_plan_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path / "none.plan")]) == 2
    assert "no such plan" in capsys.readouterr().err


def test_a_plan_without_a_manifest(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest_path(plan).unlink()
    assert inspect.main([str(plan)]) == 2
    assert "has no detector.manifest.json beside it; build the plan again" in capsys.readouterr().err


def test_a_plan_of_another_manifest(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.write_bytes(b"another")
    assert inspect.main([str(plan)]) == 2
    assert "not the file that detector.manifest.json describes" in capsys.readouterr().err
