"""The manifest beside a plan, which is a detector compiled for one GPU: what it was built from, with what, for what.

``NAME.plan`` has ``NAME.manifest.json``, written last: a plan without one was never finished, and is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from perception.config import EngineConfig, Section
from perception.detect.manifest import FileHash, manifest_path, read_section
from perception.detect.tensorrt_library import TITLES, Flavor, version_numbers
from perception.hashing import sha256

REMEDY = "build the plan again"


class TensorInfo(Section):
    """A tensor of an engine; `type` as NumPy calls it, where it knows it."""

    name: str
    type: str
    shape: tuple[int, ...]


class Layer(Section):
    """One layer of the engine: the `nodes` of the ONNX model that were fused into it, and what it computes on."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    weights: str | None = Field(description="the type of its weights")
    tactic: str

    @property
    def in_int8(self) -> bool:
        """Whether it computes in INT8: on its first input if it has weights, and on those; else on all its inputs."""
        if self.weights is None:
            return bool(self.inputs) and all(tensor.type == "int8" for tensor in self.inputs)
        return self.weights == "int8" and bool(self.inputs) and self.inputs[0].type == "int8"


class Hardware(Section):
    """The GPU that a plan was timed and checked on."""

    name: str
    compute_capability: str


class Parity(Section):
    """What came of the golden input: how far off the outputs were, see `Golden.deviation`, or why it was not run."""

    deviation: float | None
    note: str


class PlanManifest(Section):
    """The whole of it."""

    plan: FileHash
    bytes: int
    onnx: FileHash
    metadata: Mapping[str, str] = Field(description="of the ONNX model, which a plan does not keep")
    flavor: Flavor
    tensorrt: str
    cuda: str | None = Field(description="the newest version that the driver ran")
    gpu: Hardware | None = Field(description="null: built without one, as only TensorRT for RTX can be")
    settings: Mapping[str, bool | int | str | None]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[Layer, ...]
    quantised: tuple[str, ...] = Field(description="nodes with weights that the ONNX model wants in INT8")
    quantisers: tuple[str, ...] = Field(description="its QuantizeLinear and DequantizeLinear nodes")
    build_s: float
    golden: Parity

    def not_in_int8(self) -> tuple[str, ...]:
        """The nodes that the model wants in INT8, and that no layer of the engine computes in it."""
        in_int8 = {node for layer in self.layers if layer.in_int8 and layer.weights for node in layer.nodes}
        return tuple(node for node in self.quantised if node not in in_int8)

    def unfused(self) -> tuple[Layer, ...]:
        """The layers that do nothing but quantise or dequantise, where there was something to fuse that with.

        At an input of the network there is nothing in front of a Q, at an output nothing behind a DQ.
        """
        quantisers = set(self.quantisers)
        ends = {tensor.name for tensor in (*self.inputs, *self.outputs)}
        return tuple(
            layer
            for layer in self.layers
            if layer.nodes
            and quantisers.issuperset(layer.nodes)
            and not ends.intersection(tensor.name for tensor in (*layer.inputs, *layer.outputs))
        )

    def line(self) -> str:
        """What a user should know of it, in one line."""
        where = "without a GPU" if self.gpu is None else f"for {self.gpu.name} ({self.gpu.compute_capability})"
        wanted, missing = len(self.quantised), len(self.not_in_int8())
        int8 = f"{wanted - missing} of {wanted} quantised layers in INT8" if wanted else "nothing in it is quantised"
        model = f"{self.onnx.name} ({self.onnx.sha256[:8]})"
        return f"{TITLES[self.flavor]} {self.tensorrt} plan of {model}, built {where}; {int8}"


class Place(NamedTuple):
    """Where a plan is to run: a machine, a library, and the settings of a run."""

    onnx_sha256: str
    flavor: Flavor
    tensorrt: str
    gpu: Hardware | None
    settings: Mapping[str, Any]


def plan_path(engine: EngineConfig, model: Path, digest: str, input_size: tuple[int, int] | None = None) -> Path:
    """Where the plan of a model lies: by its name, the SHA-256 of its content, and ``detector.input_size`` if given."""
    size = f".{input_size[0]}x{input_size[1]}" if input_size else ""
    return engine.directory / f"{model.stem}.{digest[:8]}{size}.plan"


def read_plan_manifest(plan: Path) -> PlanManifest | None:
    """The manifest of a plan, None where plan or manifest are missing; raises `ModelError` for one that is none."""
    path = manifest_path(plan)
    if not plan.is_file() or not path.is_file():
        return None
    return read_section(path, PlanManifest, REMEDY)


def mismatch(manifest: PlanManifest, plan: Path, place: Place) -> str | None:
    """Why a plan will not do in a place; None where it will."""
    if manifest.plan.sha256 != sha256(plan):
        return "it is not the file that its manifest describes"
    if manifest.onnx.sha256 != place.onnx_sha256:
        return (
            f"it was built from another {manifest.onnx.name}: {manifest.onnx.sha256[:8]}, not {place.onnx_sha256[:8]}"
        )
    if manifest.flavor != place.flavor:
        return f"it was built by {TITLES[manifest.flavor]}, and here is {TITLES[place.flavor]}"
    return (
        _other_version(manifest, place.tensorrt)
        or _other_settings(manifest.settings, place.settings)
        or _other_gpu(manifest, place.gpu)
    )


def _other_version(manifest: PlanManifest, here: str) -> str | None:
    """A version-compatible plan also runs on later versions, of the same major version and the next."""
    if manifest.tensorrt == here:
        return None
    built, now = version_numbers(manifest.tensorrt), version_numbers(here)
    if manifest.settings.get("version_compatible") and built <= now and now[0] - built[0] <= 1:
        return None
    return f"it was built by {TITLES[manifest.flavor]} {manifest.tensorrt}, and here is {here}"


def _other_settings(built: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    for name in sorted(built.keys() | now.keys()):
        if built.get(name) != now.get(name):
            return f"it was built with engine.{name}: {built.get(name)}, and this is {now.get(name)}"
    return None


def _other_gpu(manifest: PlanManifest, here: Hardware | None) -> str | None:
    """A hardware-compatible plan also runs on other GPUs, and one that was built without a GPU on all it supports."""
    level = manifest.settings.get("hardware_compatible")
    if manifest.gpu is None or manifest.gpu == here:
        return None
    if here is None:
        return f"it was built for {manifest.gpu.name}, and here is no GPU"
    same_capability = manifest.gpu.compute_capability == here.compute_capability
    if level == "ampere_plus" or (level == "same_compute_capability" and same_capability):
        return None
    return (
        f"it was built for {manifest.gpu.name} ({manifest.gpu.compute_capability}), "
        f"and here is {here.name} ({here.compute_capability})"
    )
