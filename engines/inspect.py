"""What is in a plan: ``python -m engines.inspect PLAN``.

It reads the manifest beside it: which layers compute in INT8, what was fused into them, which quantisation stayed by
itself. It needs neither a GPU nor TensorRT.

Exit codes: 0 done, 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perception.detect.manifest import manifest_path
from perception.detect.plan_manifest import REMEDY, Layer, PlanManifest, TensorInfo, read_plan_manifest
from perception.errors import ModelError, PerceptionError
from perception.hashing import sha256


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print, and turn what a user can mend into one line and an exit code."""
    parser = argparse.ArgumentParser("engines.inspect", description="Show the layers of a plan.")
    parser.add_argument("plan", type=Path, metavar="PLAN")
    arguments = parser.parse_args(argv)
    try:
        _print(_read(arguments.plan), Console())
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _read(plan: Path) -> PlanManifest:
    if not plan.is_file():
        raise ModelError(f"{plan}: no such plan; python -m engines.build makes one and says where")
    manifest = read_plan_manifest(plan)
    if manifest is None:
        raise ModelError(f"{plan}: has no {manifest_path(plan).name} beside it; {REMEDY}")
    if manifest.plan.sha256 != sha256(plan):
        raise ModelError(f"{plan}: not the file that {manifest_path(plan).name} describes; {REMEDY}")
    return manifest


def _print(manifest: PlanManifest, console: Console) -> None:
    console.print(_table(manifest))
    in_int8 = sum(layer.in_int8 for layer in manifest.layers)
    cuda = f", CUDA {manifest.cuda}" if manifest.cuda else ""
    settings = ", ".join(f"{name} {value}" for name, value in manifest.settings.items())
    rows = {
        "plan": f"{manifest.plan.name}, {manifest.bytes / 1e6:.2f} MB, built in {manifest.build_s:.1f} s",
        "": f"{manifest.line()}{cuda}",
        "settings": settings,
        "input": ", ".join(map(_tensor, manifest.inputs)),
        "outputs": ", ".join(map(_tensor, manifest.outputs)),
        "layers": f"{len(manifest.layers)}, of which {in_int8} compute in INT8",
        "not INT8": ", ".join(manifest.not_in_int8()) or "nothing that is quantised",
        "unfused": ", ".join(layer.name for layer in manifest.unfused()) or "no Q or DQ that could have been fused",
        "golden": manifest.golden.note,
    }
    for title, line in rows.items():
        console.print(f"[bold]{title:<9}[/] {escape(line)}", soft_wrap=True, highlight=False)


def _table(manifest: PlanManifest) -> Table:
    quantisers = set(manifest.quantisers)
    unfused = {layer.name for layer in manifest.unfused()}
    table = Table(box=None, header_style="bold", expand=True)
    for heading in ("kind", "computes in", "writes", "output", "Q/DQ"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "Q/DQ" else "left")
    table.add_column("nodes of the ONNX model", no_wrap=True, ratio=1)
    for layer in manifest.layers:
        style = "yellow" if layer.name in unfused else "" if layer.in_int8 else "dim"
        table.add_row(*_row(layer, quantisers), style=style)
    return table


def _row(layer: Layer, quantisers: Collection[str]) -> tuple[str, ...]:
    """A layer by the nodes of the ONNX model that it computes, and how many of Q and DQ it has taken in."""
    nodes = [node for node in layer.nodes if node not in quantisers]
    fused = len(layer.nodes) - len(nodes)
    computes = "int8" if layer.in_int8 else _types(layer.inputs)
    shape = _shape(layer.outputs[0]) if layer.outputs else ""
    name = ", ".join(nodes) or layer.name
    return layer.kind, computes, _types(layer.outputs), shape, str(fused or ""), escape(name)


def _types(tensors: Sequence[TensorInfo]) -> str:
    return " ".join(dict.fromkeys(tensor.type for tensor in tensors))


def _tensor(tensor: TensorInfo) -> str:
    return f"{tensor.name} {tensor.type} {_shape(tensor)}"


def _shape(tensor: TensorInfo) -> str:
    return "x".join(map(str, tensor.shape))


if __name__ == "__main__":
    sys.exit(main())
