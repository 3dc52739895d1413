"""The table of layers that TensorRT prints when an engine is built: what was fused into what, and on which types.

With detailed profiling verbosity the builder says it as the engine inspector would, in its one-line format, to the
verbose logger: so no GPU is needed to read it. A layer is a line

    Name: ..., LayerType: ..., Inputs: [ { Name: ..., Dimensions: [1,3,256,448], ... }], ..., Metadata: ...

TensorRT says ``Format/Datatype: Row major Int8 format`` of a tensor and ``Weights: {"Type": "Int8", ...}`` of a layer;
TensorRT for RTX says ``Datatype: Int8`` and lists a layer's weights among its ``Constants``.
"""

from __future__ import annotations

import math
import re
from typing import Final

from perception.detect.plan_manifest import Layer, TensorInfo

TABLE: Final = "Layers:\n"
"""How the message begins that holds the table."""

_ORDERING: Final = ("signal", "wait")
_HEAD: Final = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+)")
_TENSOR: Final = re.compile(
    r"\{ Name: (?P<name>.*?),(?: Location: \w+,)? Dimensions: \[(?P<shape>[\d,-]*)\],.*?"
    r"(?:Format/)?Datatype: (?P<type>[^,}]*)"
)
_SECTION: Final = re.compile(r", (Inputs|Constants|Outputs): \[( \{ .*? \})?\]")
_WEIGHTS: Final = re.compile(r'Weights: \{"Type": "(\w+)"')
_TACTIC: Final = re.compile(r"TacticName: ([^,]*)")
_NODE: Final = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*)\]")
_TYPES: Final = {
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    **{name: name for name in ("bfloat16", "int4", "int8", "uint8", "int32", "int64", "bool", "fp8")},
}


def read_table(text: str) -> tuple[Layer, ...]:
    """Read the layers out of the builder's table, in the order of execution; those that only order streams left out."""
    lines = (line for line in text.split("\n") if line.startswith("Name: "))
    return tuple(layer for layer in map(_layer, lines) if layer.kind not in _ORDERING)


def _layer(line: str) -> Layer:
    head = _HEAD.match(line)
    description, _, metadata = line.partition(", Metadata: ")
    sections = dict(_SECTION.findall(description))
    tactic = _TACTIC.search(description)
    return Layer(
        name=head["name"] if head else "",
        kind=head["kind"] if head else "",
        nodes=tuple(_NODE.findall(metadata)),
        inputs=_tensors(sections.get("Inputs", "")),
        outputs=_tensors(sections.get("Outputs", "")),
        weights=_weights(description, _tensors(sections.get("Constants", ""))),
        tactic=tactic[1] if tactic else "",
    )


def _tensors(section: str) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=match["name"],
            type=_type(match["type"]),
            shape=tuple(int(axis) for axis in match["shape"].split(",") if axis),
        )
        for match in _TENSOR.finditer(section)
    )


def _weights(description: str, constants: tuple[TensorInfo, ...]) -> str | None:
    """The type of a layer's weights: of the largest constant with two axes to it, as scales and biases have one."""
    told = _WEIGHTS.search(description)
    if told:
        return _type(told[1])
    filters = [constant for constant in constants if sum(axis > 1 for axis in constant.shape) >= 2]
    return max(filters, key=lambda constant: math.prod(constant.shape)).type if filters else None


def _type(told: str) -> str:
    """The type in ``Thirty-two wide channel vectorized row major Int8 format``; as told where it is unknown."""
    known = (_TYPES.get(word.lower()) for word in re.findall(r"\w+", told))
    return next((name for name in known if name), told.strip())
