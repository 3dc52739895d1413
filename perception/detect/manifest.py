"""The manifest beside an INT8 model: where it comes from, what it was calibrated on, and what was lost on the way.

``NAME.onnx`` has ``NAME.manifest.json``. engines/ writes it; whoever loads the model checks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from perception.config import Section
from perception.errors import ModelError
from perception.hashing import sha256
from perception.messages import Float32

_MAX_BYTES: Final = 10_000_000
MOST_DEVIATION: Final = 0.15
"""Of golden outputs, see `Golden.deviation`.

Executions of one INT8 model that round at other places came to 0.05 on the stock detector, another model comes to 1.4.
"""

S = TypeVar("S", bound=Section)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileHash(Section):
    """A file by name and content."""

    name: str
    sha256: Sha256


class Count(Section):
    """Calibration frames found and wanted."""

    found: int
    wanted: int


class Calibration(Section):
    """What activation ranges were measured on; `sha256` is over the pixels of all frames, in order.

    `given_tags` are those of ``--tags``, by key: the coverage of drives that hold none of that key is what they say.
    """

    drives: tuple[FileHash, ...]
    frames: int
    sha256: Sha256
    coverage: Mapping[str, Count]
    allowed_gaps: tuple[str, ...]
    given_tags: Mapping[str, tuple[str, ...]] = {}


class LeftOut(Section):
    """A node that stays float; `noise` is what quantising it alone adds, as a part of the outputs' variance."""

    node: str
    reason: str
    noise: float | None = None


class Figures(Section):
    """Average precision of the float model and of the INT8 one, in [0, 1]; None where there was nothing to find."""

    float32: float | None
    int8: float | None


class Accuracy(Section):
    """What validation measured: figures over all, and AP at an IoU of 0.5 per class, size and condition.

    `given_tags` as for `Calibration`: conditions can come of them.
    """

    drives: tuple[FileHash, ...]
    images: int
    objects: int
    map50: Figures
    map50_95: Figures
    per_class: Mapping[str, Figures]
    per_size: Mapping[str, Figures]
    per_condition: Mapping[str, Figures]
    given_tags: Mapping[str, tuple[str, ...]] = {}


class GoldenOutput(Section):
    """What one output must give for the golden input: values at `indices` of the flattened output.

    `stds`, where there are any, stand for `std`, value by value: boxes and scores side by side in one output differ too
    much for one measure.
    """

    name: str
    indices: tuple[int, ...]
    values: tuple[float, ...]
    std: float = Field(description="of the whole output, the measure for how far a value may be off")
    stds: tuple[float, ...] = ()


class Golden(Section):
    """An input that anyone can make, ``numpy.random.default_rng(seed).integers(0, 256, shape)``, and its outputs."""

    seed: int
    shape: tuple[int, ...]
    outputs: tuple[GoldenOutput, ...]

    def image(self) -> Float32:
        """The input."""
        return np.random.default_rng(self.seed).integers(0, 256, self.shape).astype(np.float32)

    def deviation(self, outputs: Mapping[str, NDArray[Any]]) -> float:
        """How far the `outputs` for the golden input are off, by name: root mean square, in parts of their `std`.

        Of the worst of them; infinite where one is missing, too small, or not finite.
        """
        return max(_deviation(golden, outputs.get(golden.name)) for golden in self.outputs)


class Manifest(Section):
    """The whole of it; `accuracy` is empty until the model has passed validation.

    `equalised` names the activations whose channels were brought to like ranges, `left_out` the nodes that are float.
    """

    model: FileHash
    source: FileHash
    method: str
    calibration: Calibration
    equalised: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...]
    noise: float
    golden: Golden
    tools: Mapping[str, str]
    accuracy: Accuracy | None = None

    def line(self) -> str:
        """What a user should know before trusting the model, in one line."""
        if self.accuracy is None:
            verdict = "not validated yet: run python -m engines.validate"
        else:
            figures = self.accuracy.map50
            verdict = f"mAP50 {_points(figures.int8)} (float {_points(figures.float32)})"
        count = len(self.calibration.allowed_gaps)
        gaps = f", with {count} gap{'s' * (count > 1)} in its coverage" if count else ""
        return (
            f"INT8 from {self.source.name} ({self.source.sha256[:8]}), {self.method} over {self.calibration.frames} "
            f"frames of {len(self.calibration.drives)} drives{gaps}; {verdict}"
        )


def manifest_path(model: Path) -> Path:
    """Where a model's manifest lies."""
    return model.with_suffix(".manifest.json")


def read_manifest(model: Path) -> Manifest | None:
    """The manifest of a model, None where it has none.

    Raises `ModelError` for one that cannot be read, and for one that belongs to another model.
    """
    path = manifest_path(model)
    if not path.is_file():
        return None
    manifest = read_section(path, Manifest, "quantise the model again")
    if manifest.model.sha256 != sha256(model):
        raise ModelError(
            f"{model}: not the file that {path} describes; put the right one there, or quantise the model again"
        )
    return manifest


def write_manifest(manifest: Section, model: Path) -> None:
    """Write the manifest of a model, or of a plan, whole or not at all; raises `OSError`."""
    path = manifest_path(model)
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_section(path: Path, section: type[S], remedy: str) -> S:
    """Read a manifest; raises `ModelError`, with the `remedy`, for one that cannot be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size} bytes; a manifest has at most {_MAX_BYTES}")
        return section.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: no manifest: {where}: {first['msg']}; {remedy}") from None


def _deviation(golden: GoldenOutput, output: NDArray[Any] | None) -> float:
    if output is None or output.size <= max(golden.indices):
        return math.inf
    off = np.asarray(output, np.float64).reshape(-1)[list(golden.indices)] - golden.values
    deviation = math.sqrt(float(np.mean((off / np.maximum(golden.stds or golden.std, 1e-12)) ** 2)))
    return deviation if math.isfinite(deviation) else math.inf


def _points(fraction: float | None) -> str:
    return "unknown" if fraction is None else f"{fraction:.3f}"
