"""Quantise a detector to INT8: ``python -m engines.quantize MODEL.onnx --calibrate DRIVE ... --out MODEL.int8.onnx``.

Calibration frames have to cover the profile. What comes out has not been validated yet: ``python -m engines.validate``
does that, and takes it away again if it lost too much. Exit codes: 0 done, 1 interrupted, 2 refused (one line says
why).
"""

from __future__ import annotations

from engines import extras

if __name__ == "__main__":  # before the imports, which are of these
    extras.require("onnx")

import argparse
import hashlib
import importlib.metadata
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, get_args

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from rich.progress import track
from rich.table import Table

from engines import qdq
from engines.coverage import Coverage, Profile, parse_tags, sorted_tags
from engines.equalise import equalise
from engines.frames import cameras, frames, to_stderr
from engines.runner import Runner, Tensors
from perception import config
from perception.arguments import count
from perception.config import Config, Section
from perception.detect import manifest
from perception.detect.manifest import Calibration, Count, FileHash, Golden, GoldenOutput, LeftOut, Manifest
from perception.errors import OutputError, PerceptionError
from perception.hashing import sha256
from perception.messages import Float32

EXIT_INTERRUPTED: Final = 1
_TOOLS: Final = ("numpy", "onnx", "onnxruntime", "opencv-python")
_GOLDEN_SEED: Final = 20
_GOLDEN_VALUES: Final = 32
_GOLDEN_ROWS: Final = 8


class QuantizeConfig(Section):
    """configs/engines/quantize.yaml: how INT8 models are made."""

    every: Annotated[int, Field(gt=0)] = Field(5, description="one frame set in so many is calibrated on")
    sensitivity_frames: Annotated[int, Field(gt=0)] = Field(16, description="frames that sensitivity is measured on")
    max_node_noise: Annotated[float, Field(gt=0)] = Field(
        0.01, description="a node that alone adds more noise than this part of the outputs' variance stays float"
    )
    max_left_out: Annotated[int, Field(ge=0)] = Field(4, description="at most so many nodes stay float for their noise")


class _Job(NamedTuple):
    """What to calibrate on."""

    drives: Sequence[Path]
    rig: Path | None
    given: Mapping[str, set[str]]
    every: int


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, quantise, and turn what a user can mend into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    try:
        _quantize(arguments)
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("engines.quantize", description="Quantise an ONNX detector to INT8.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx")
    add("--calibrate", type=Path, nargs="+", required=True, metavar="DRIVE", help="recordings to measure ranges on")
    add("--out", type=Path, required=True, metavar="MODEL.int8.onnx")
    add("--method", choices=get_args(qdq.Method), default="minmax", help="default: %(default)s")
    add(
        "--profile",
        default="engines/coverage.yaml",
        metavar="NAME",
        help="what calibration has to cover (default: %(default)s)",
    )
    add("--allow-gap", action="append", default=[], metavar="TAG", help="let a tag of the profile be missing")
    add("--tags", default=None, metavar="KEY=VALUE,...", help="tags for keys that a drive lacks, such as light=day")
    add("--every", type=count, metavar="N", help="one frame set in so many (default: that of --settings)")
    add("--rig", type=Path, metavar="FILE", help="calibration of cameras, for drives that hold none")
    add("--config", default="base.yaml", metavar="NAME", help="its detector section tells how the model is used")
    add("--settings", default="engines/quantize.yaml", metavar="NAME", help="see configs/engines/quantize.yaml")
    return parser


def _quantize(arguments: argparse.Namespace) -> None:
    run_config = config.load(arguments.config)
    settings = config.load_file(config.find(arguments.settings), QuantizeConfig)
    profile = config.load_file(config.find(arguments.profile), Profile)
    console = Console()
    _check_out(arguments.out, arguments.model)
    model, source = qdq.read(arguments.model), file_hash(arguments.model)
    sizes = cameras(arguments.calibrate, arguments.rig)
    tensors = Tensors(sizes, _input_spec(arguments.model, run_config))
    given = parse_tags(arguments.tags) if arguments.tags else {}
    job = _Job(arguments.calibrate, arguments.rig, given, arguments.every or settings.every)

    coverage = Coverage(profile, list(sizes), arguments.allow_gap)
    digest, count = _survey(job, coverage)
    console.print(_coverage_table(coverage, count))
    coverage.check()

    name = model.graph.input[0].name

    def inputs(doing: str) -> Iterator[dict[str, Float32]]:
        for known in track(_all(job), doing, total=count, console=console):
            yield {name: tensors(known.frame)}

    model, equalised = equalise(model, inputs("equalising"))
    ranges = qdq.measure_ranges(model, inputs("calibrating"), arguments.method)

    chosen = _evenly(job, count, settings.sensitivity_frames)
    probes = [{name: tensors(known.frame)} for known in chosen]
    left_out = _choose_left_out(model, ranges, probes, settings, console)
    quantised = qdq.quantise(model, ranges, [entry.node for entry in left_out])
    noise = qdq.compare(model, quantised, probes)

    described = Calibration(
        drives=tuple(file_hash(path) for path in job.drives),
        frames=count,
        sha256=digest,
        coverage={name: Count(found=found, wanted=wanted) for name, (found, wanted) in coverage.table().items()},
        allowed_gaps=tuple(coverage.allowed_gaps()),
        given_tags=sorted_tags(given),
    )
    data = quantised.SerializeToString()
    _install(
        data,
        Manifest(
            model=FileHash(name=arguments.out.name, sha256=hashlib.sha256(data).hexdigest()),
            source=source,
            method=arguments.method,
            calibration=described,
            equalised=tuple(equalised),
            left_out=left_out,
            noise=noise,
            golden=_golden(quantised, tensors(chosen[0].frame).shape),
            tools={tool: importlib.metadata.version(tool) for tool in _TOOLS},
        ),
        arguments.out,
    )
    console.print(
        f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, noise {noise:.2g} of the outputs' variance; "
        f"next: python -m engines.validate {arguments.model} {arguments.out} --drives ..."
    )


def file_hash(path: Path) -> FileHash:
    """A file by its name and content; a folder of images by the names and sizes in it."""
    if path.is_dir():
        listing = "\n".join(f"{p.relative_to(path)} {p.stat().st_size}" for p in sorted(path.rglob("*")) if p.is_file())
        return FileHash(name=path.name, sha256=hashlib.sha256(listing.encode()).hexdigest())
    return FileHash(name=path.name, sha256=sha256(path))


def _check_out(path: Path, model: Path) -> None:
    """Refuse with `OutputError` a place that the INT8 model cannot have."""
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"--out {path}: expected a file that ends in .onnx, such as {model.stem}.int8.onnx")
    if path.is_dir():
        raise OutputError(f"--out {path}: is a directory; name a file in it")
    if path.resolve() == model.resolve() or (path.exists() and model.exists() and path.samefile(model)):
        raise OutputError(f"--out {path}: is MODEL itself, which validation needs; name another file")


def _input_spec(model: Path, run_config: Config) -> Any:
    runner = Runner(model, run_config.detector, run_config.nms, threads=1)
    runner.close()
    return runner.spec


def _all(job: _Job, tell: Callable[[str], None] = lambda _: None) -> Iterator[Any]:
    for path in job.drives:
        yield from frames(path, job.rig, job.given, job.every, tell)


def _survey(job: _Job, coverage: Coverage) -> tuple[str, int]:
    """Count what the calibration frames show; the hash over their pixels, and their number."""
    digest = hashlib.sha256()
    count = 0
    for known in _all(job, to_stderr):
        coverage.add(known.tags)
        digest.update(known.frame.image.tobytes())
        count += 1
    if count == 0:
        raise OutputError(f"no frames in {', '.join(map(str, job.drives))}; calibrate on a drive with images")
    return digest.hexdigest(), count


def _evenly(job: _Job, count: int, wanted: int) -> list[Any]:
    """So many frames, evenly spread over all."""
    places = set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist())
    return [known for place, known in enumerate(_all(job)) if place in places]


def _choose_left_out(
    model: onnx.ModelProto,
    ranges: Any,
    probes: Sequence[Mapping[str, Float32]],
    settings: QuantizeConfig,
    console: Console,
) -> tuple[LeftOut, ...]:
    """The output layers, and the nodes that are worst for the outputs when quantised alone."""
    last = qdq.output_layers(model)
    candidates = [name for name in qdq.quantisable(model) if name not in last]
    measured = dict(
        track(qdq.sensitivity(model, ranges, candidates, probes), "sensitivity", total=len(candidates), console=console)
    )
    worst_first = sorted(measured, key=lambda name: -measured[name])
    table = Table("node", "noise when quantised alone", title="most sensitive nodes")
    for name in worst_first[:8]:
        table.add_row(name, f"{measured[name]:.2g}")
    console.print(table)
    sensitive = [name for name in worst_first if measured[name] > settings.max_node_noise][: settings.max_left_out]
    return (
        *(LeftOut(node=name, reason="output layer") for name in last),
        *(LeftOut(node=name, reason="sensitivity", noise=measured[name]) for name in sensitive),
    )


def _golden(model: onnx.ModelProto, shape: tuple[int, ...]) -> Golden:
    """A few values of each output for an input made from a seed: enough to see that a runtime or an engine agrees."""
    image = np.random.default_rng(_GOLDEN_SEED).integers(0, 256, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {model.graph.input[0].name: image})
    golden = []
    for port, output in zip(model.graph.output, outputs, strict=True):
        values = np.asarray(output)
        flat = values.reshape(-1)
        indices = _golden_indices(values.shape)
        stds = np.broadcast_to(np.sqrt(qdq.variance(values[None])), (1, *values.shape)).reshape(-1)[indices]
        golden.append(
            GoldenOutput(
                name=port.name,
                indices=tuple(indices.tolist()),
                values=tuple(round(float(v), 6) for v in flat[indices]),
                std=float(flat.std()),
                stds=tuple(round(float(v), 6) for v in stds) if values.ndim == 3 else (),
            )
        )
    return Golden(seed=_GOLDEN_SEED, shape=shape, outputs=tuple(golden))


def _golden_indices(shape: tuple[int, ...]) -> NDArray[Any]:
    """Places in a flattened output, evenly spread: over all of it, or in a table of boxes over each of its channels."""
    size = math.prod(shape)
    if len(shape) != 3:
        return np.linspace(0, size - 1, min(_GOLDEN_VALUES, size)).astype(int)
    axis = qdq.channel_axis(shape)
    boxes, channels = size // shape[axis], shape[axis]
    rows = min(_GOLDEN_ROWS, boxes)
    channel, row = np.mgrid[:channels, :rows]
    box = ((row + channel / channels) * boxes / rows).astype(int)  # other boxes in each channel
    return np.sort((box * channels + channel if axis == 2 else channel * boxes + box).reshape(-1))


def _install(model: bytes, described: Manifest, path: Path) -> None:
    """Write the model and its manifest, whole; raises `OutputError`.

    The manifest comes first: a model with another's manifest is refused wherever it is loaded, one without is not.
    """
    partial = path.with_suffix(".partial.onnx")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(model)
        manifest.write_manifest(described, path)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _coverage_table(coverage: Coverage, count: int) -> Table:
    table = Table("condition", "frames", "wanted", title=f"{count} calibration frames")
    for name, (found, wanted) in coverage.table().items():
        style = "" if found >= wanted else "red"
        table.add_row(name, str(found), str(wanted), style=style)
    return table


if __name__ == "__main__":
    sys.exit(main())
