"""The accuracy gate: ``python -m engines.validate MODEL.onnx MODEL.int8.onnx --drives DRIVE ...``.

Runs both models on drives with ground truth and prints them side by side. When INT8 lost more than the limits allow, it
is refused: the file and its manifest are removed. Otherwise the figures go into the manifest. Exit codes: 0 passed,
1 refused for its accuracy or interrupted, 2 refused for another reason (one line says why).
"""

from __future__ import annotations

from engines import extras

if __name__ == "__main__":  # before the imports, which are of these
    extras.require("onnx", "pycocotools")

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.progress import track
from rich.table import Table

from engines.accuracy import Accuracy, Errors, TrueBoxes, count_errors, evaluate
from engines.coverage import parse_tags, sorted_tags
from engines.frames import KnownFrame, cameras, frames, to_stderr
from engines.quantize import file_hash
from engines.runner import Runner, Tensors
from perception import config
from perception.arguments import count
from perception.config import Config, Section
from perception.detect import manifest
from perception.detect.manifest import Figures
from perception.detect.model import check_file
from perception.errors import DriveError, ModelError, OutputError, PerceptionError
from perception.hashing import sha256
from perception.messages import Candidates

EXIT_LOST_TOO_MUCH: Final = 1
EXIT_INTERRUPTED: Final = 1
_LEAST_SCORE: Final = 0.02
_NO_CONDITION: Final = ("camera", "size")
Points = Annotated[float, Field(ge=0, le=100)]


class ValidateConfig(Section):
    """configs/engines/validate.yaml: what INT8 may cost, in points of AP at an IoU of 0.5 (100 points are 1.0)."""

    every: Annotated[int, Field(gt=0)] = Field(5, description="one frame set in so many is looked at")
    max_drop_points: Points = Field(1.0, description="of mAP50 over all classes")
    max_class_drop_points: Points = Field(2.0, description="of any class")
    min_class_objects: Annotated[int, Field(gt=0)] = Field(
        50, description="a class with fewer objects in the drives is shown but not judged"
    )


class Compared:
    """Both models' findings in the same images, with what there was to find, and the median times they took."""

    def __init__(self) -> None:
        self.truth: list[TrueBoxes] = []
        self.conditions: list[frozenset[str]] = []
        self.float32: list[Candidates] = []
        self.int8: list[Candidates] = []
        self.inference_ms = (math.nan, math.nan)

    def accuracy(self, condition: str | None = None) -> tuple[Accuracy, Accuracy]:
        """Of the float model and of INT8, over all images or those of one condition."""
        rows = [i for i, found in enumerate(self.conditions) if condition is None or condition in found]
        truth = [self.truth[i] for i in rows]
        return evaluate(truth, [self.float32[i] for i in rows]), evaluate(truth, [self.int8[i] for i in rows])

    def errors(self, condition: str, least_score: float) -> tuple[Errors, Errors]:
        """Of the float model and of INT8 in the images of one condition, where the pipeline draws the line."""
        rows = [i for i, found in enumerate(self.conditions) if condition in found]
        truth = [self.truth[i] for i in rows]
        float32, int8 = ([found[i] for i in rows] for found in (self.float32, self.int8))
        return count_errors(truth, float32, least_score), count_errors(truth, int8, least_score)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, compare, and turn what a user can mend into one line and an exit code."""
    parser = argparse.ArgumentParser("engines.validate", description="Hold an INT8 model against its float model.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx")
    add("int8", type=Path, metavar="MODEL.int8.onnx")
    add("--drives", type=Path, nargs="+", required=True, metavar="DRIVE", help="recordings with ground truth")
    add("--every", type=count, metavar="N", help="one frame set in so many (default: that of --limits)")
    add("--rig", type=Path, metavar="FILE", help="calibration of cameras, for drives that hold none")
    add("--tags", default=None, metavar="KEY=VALUE,...", help="tags for keys that a drive lacks, such as light=day")
    add("--config", default="base.yaml", metavar="NAME", help="its detector section tells how the models are used")
    add("--limits", default="engines/validate.yaml", metavar="NAME", help="see configs/engines/validate.yaml")
    arguments = parser.parse_args(argv)
    try:
        return _validate(arguments)
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the model is neither passed nor refused", file=sys.stderr)
        return EXIT_INTERRUPTED


def drops(float32: Accuracy, int8: Accuracy, limits: ValidateConfig, objects: Mapping[str, int]) -> list[str]:
    """Where INT8 lost more than the limits allow, a line each."""
    lost = 100 * (float32.map50 - int8.map50)
    lines = [f"mAP50 fell by {lost:.2f} points, at most {limits.max_drop_points:g} are allowed"]
    lines = lines if lost > limits.max_drop_points else []
    for name, before in float32.per_class.items():
        lost = 100 * (before - int8.per_class[name])
        if objects.get(name, 0) >= limits.min_class_objects and lost > limits.max_class_drop_points:
            lines.append(f"AP50 of {name} fell by {lost:.2f}, at most {limits.max_class_drop_points:g} are allowed")
    return lines


def _validate(arguments: argparse.Namespace) -> int:
    limits = config.load_file(config.find(arguments.limits), ValidateConfig)
    run_config = config.load(arguments.config)
    for path in (arguments.model, arguments.int8):
        check_file(path)
    described = manifest.read_manifest(arguments.int8)
    if described is None:
        expected = manifest.manifest_path(arguments.int8).name
        raise ModelError(f"{arguments.int8}: no {expected} beside it; quantise it first")
    if described.source.sha256 != sha256(arguments.model):
        raise ModelError(f"{arguments.int8}: not made from {arguments.model} but from another {described.source.name}")
    console = Console()
    given = parse_tags(arguments.tags) if arguments.tags else {}
    compared = _compare(arguments, run_config, given, arguments.every or limits.every, console)
    float32, int8 = compared.accuracy()
    _check_measured(float32, arguments.model)
    names = sorted(set().union(*compared.conditions))
    by_condition = {name: compared.accuracy(name) for name in names}
    console.print(_table(float32, int8, by_condition))
    console.print(_errors_table(compared, names, run_config.detector.score_threshold))
    before, after = compared.inference_ms
    console.print(
        f"one inference here: float {before:.1f} ms, INT8 {after:.1f} ms (medians): {before / after:.1f} times as fast"
    )

    lines = drops(float32, int8, limits, float32.counts)
    if lines:
        _remove(arguments.int8)
        print(f"refused: {arguments.int8} is removed: {'; '.join(lines)}", file=sys.stderr)
        return EXIT_LOST_TOO_MUCH
    measured = manifest.Accuracy(
        drives=tuple(file_hash(path) for path in arguments.drives),
        images=float32.images,
        objects=float32.objects,
        map50=_figures(float32.map50, int8.map50),
        map50_95=_figures(float32.map50_95, int8.map50_95),
        per_class={name: _figures(value, int8.per_class[name]) for name, value in float32.per_class.items()},
        per_size={name: _figures(value, int8.per_size[name]) for name, value in float32.per_size.items()},
        per_condition={name: _figures(a.map50, b.map50) for name, (a, b) in by_condition.items()},
        given_tags=sorted_tags(given),
    )
    accepted = described.model_copy(update={"accuracy": measured})
    try:
        manifest.write_manifest(accepted, arguments.int8)
    except OSError as error:
        path = manifest.manifest_path(arguments.int8)
        raise OutputError(f"{path}: cannot be written: {error.strerror}; make room there, or allow it") from None
    console.print(f"passed: {accepted.line()}")
    return 0


def _check_measured(float32: Accuracy, model: Path) -> None:
    """Refuse with `PerceptionError` what would pass because there was nothing to lose."""
    if float32.objects == 0:
        raise DriveError(
            f"no objects to find in {float32.images} images; validate on drives that show some, or with a lower --every"
        )
    if not float32.map50 > 0:  # NaN too
        raise ModelError(
            f"{model}: found none of {float32.objects} objects, so INT8 has nothing to lose; validate on drives of the "
            "kind that it knows, with a --config whose detector section suits it"
        )


def _remove(model: Path) -> None:
    """A model and its manifest, both."""
    try:
        model.unlink()
        manifest.manifest_path(model).unlink()
    except OSError as error:
        raise OutputError(f"{model}: lost too much and cannot be removed: {error.strerror}; remove it") from None


def _compare(
    arguments: argparse.Namespace, run_config: Config, given: Mapping[str, set[str]], every: int, console: Console
) -> Compared:
    detector = run_config.detector.model_copy(update={"score_threshold": _LEAST_SCORE})
    runners = [Runner(path, detector, run_config.nms, threads=2) for path in (arguments.model, arguments.int8)]
    tensors = Tensors(cameras(arguments.drives, arguments.rig), runners[0].spec)
    compared = Compared()

    def known_frames() -> Iterator[None]:
        for path in arguments.drives:
            for known, truth in _labelled(path, frames(path, arguments.rig, given, every, to_stderr), console):
                tensor = tensors(known.frame)
                for runner, found in zip(runners, (compared.float32, compared.int8), strict=True):
                    found.append(tensors.to_image(known.frame.camera, runner(tensor)))
                compared.truth.append(truth)
                conditions = [values for key, values in known.tags.items() if key not in _NO_CONDITION]
                compared.conditions.append(frozenset[str]().union(*conditions))
                yield

    for _ in track(known_frames(), "comparing", console=console):
        pass
    for runner in runners:
        runner.close()
    if not compared.truth:
        raise DriveError(f"no frames in {', '.join(map(str, arguments.drives))}; validate on a drive with images")
    a, b = (1e3 * float(np.median(runner.inferences_s)) for runner in runners)
    compared.inference_ms = (a, b)
    return compared


def _labelled(path: Path, drive: Iterable[KnownFrame], console: Console) -> Iterator[tuple[KnownFrame, TrueBoxes]]:
    """The frames of a drive that have ground truth, with it; raises `DriveError` for a camera that has none at all.

    Single ones may lack it: where labels begin late, or where a damaged recording ends.
    """
    labelled: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for known in drive:
        if known.truth is None:
            without[known.frame.camera] += 1
        else:
            labelled[known.frame.camera] += 1
            yield known, known.truth
    lacking = [camera for camera in without if camera not in labelled]
    if lacking:
        raise DriveError(f"{path}: no ground truth for {', '.join(lacking)}; validate on a labelled drive")
    if without:
        console.print(f"{path}: {without.total()} images left out, for which it has no ground truth")


def _table(float32: Accuracy, int8: Accuracy, by_condition: Mapping[str, tuple[Accuracy, Accuracy]]) -> Table:
    table = Table(title=f"{float32.images} images, {float32.objects} objects")
    for heading in ("AP at IoU 0.5", "float", "INT8", "drop in points"):
        table.add_column(heading, justify="left" if heading.startswith("AP") else "right")

    def row(name: str, before: float, after: float) -> None:
        if not math.isnan(before):
            table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{100 * (before - after):+.2f}")

    row("all", float32.map50, int8.map50)
    row("all, IoU 0.5 to 0.95", float32.map50_95, int8.map50_95)
    for title, before, after in (
        ("class", float32.per_class, int8.per_class),
        ("size", float32.per_size, int8.per_size),
    ):
        table.add_section()
        for name, value in before.items():
            row(f"{title} {name}", value, after[name])
    table.add_section()
    for name, (a, b) in by_condition.items():
        row(f"in {name}", a.map50, b.map50)
    return table


def _errors_table(compared: Compared, conditions: Sequence[str], least_score: float) -> Table:
    table = Table(title=f"errors at a score of {least_score:g}")
    table.add_column("condition")
    for heading in ("objects", "missed, float", "missed, INT8", "false, float", "false, INT8"):
        table.add_column(heading, justify="right")
    for name in conditions:
        a, b = compared.errors(name, least_score)
        table.add_row(name, *map(str, (a.objects, a.missed, b.missed, a.false, b.false)))
    return table


def _figures(float32: float, int8: float) -> Figures:
    return Figures(float32=_or_none(float32), int8=_or_none(int8))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


if __name__ == "__main__":
    sys.exit(main())
