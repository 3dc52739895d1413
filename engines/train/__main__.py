"""Train the stock detector: ``python -m engines.train --out engines/stock``.

Draws the images, learns, measures on towns never seen, writes detector.onnx, training.md and training.png. Interrupted,
it goes on where it was. Exit codes: 0 done, 1 interrupted, 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from engines.train.config import TrainConfig
from perception import config
from perception.arguments import count
from perception.errors import BackendError, PerceptionError

_CACHE: Final = Path(".cache/train")
_HEADING: Final = """\
Average precision in points of a hundred, per class and size at an IoU of 0.5, on towns that training never saw
(split `evaluate`; boxes at least 12 px high and 0.4 visible)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train, and turn what a user can mend into one line and an exit code."""
    parser = argparse.ArgumentParser("engines.train", description="Train the stock detector on the synthetic world.")
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where the model, the table and the curves go")
    add(
        "--config",
        default="engines/train.yaml",
        metavar="NAME",
        help="a file, or a name in configs/ (default: %(default)s)",
    )
    add("--cache", type=Path, default=_CACHE, metavar="DIR", help="drawn images and checkpoints (default: %(default)s)")
    cores = len(os.sched_getaffinity(0))
    add("--threads", type=count, default=cores, metavar="N", help="default: every core allowed")
    arguments = parser.parse_args(argv)
    try:
        chosen = config.load_file(config.find(arguments.config), TrainConfig)
        _train(chosen, arguments.out, arguments.cache, arguments.threads)
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last whole epoch", file=sys.stderr)
        return 1
    return 0


def _train(chosen: TrainConfig, out: Path, cache: Path, threads: int) -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise BackendError("PyTorch is not installed; pip install -e '.[train]'") from None
    from engines.train import curves, detect, render
    from engines.train.dataset import Example
    from engines.train.export import export
    from engines.train.loop import train
    from engines.train.model import StockDetector

    def shoot(split: str, shoots: int) -> list[render.Shoot]:
        return render.plan(split, shoots, chosen.ticks)

    examples = render.examples(shoot("train", chosen.shoots), cache, threads, "train")
    held_back = render.examples(shoot("validate", chosen.validate_shoots), cache, threads, "validate")

    def validate(network: StockDetector) -> Mapping[str, float]:
        measured = detect.accuracy(network, held_back, chosen.input_size)
        return {"mAP50": measured.map50, "mAP50-95": measured.map50_95}

    network, history = train(examples, validate, chosen, cache / "checkpoint.pt", threads)

    by_scenario: dict[str, list[Example]] = {}
    for one in shoot("evaluate", chosen.evaluate_shoots):
        by_scenario.setdefault(one.scenario, []).extend(render.examples([one], cache, 1, f"evaluate {one.seed}"))
    everything = [example for of_scenario in by_scenario.values() for example in of_scenario]
    measured = {
        name: detect.accuracy(network, of_scenario, chosen.input_size)
        for name, of_scenario in {"all": everything, **by_scenario}.items()
    }

    out.mkdir(parents=True, exist_ok=True)
    export(network, out / "detector.onnx", chosen.input_size, {"trained_on": _provenance(chosen, len(examples))})
    curves.draw(history, out / "training.png")
    (out / "training.md").write_text(f"{_HEADING}\n\n{curves.table(measured)}", encoding="utf-8")
    print(curves.table(measured))
    print(f"{out / 'detector.onnx'}: mAP50 {measured['all'].map50:.3f} on {len(everything)} held-out images")


def _provenance(chosen: TrainConfig, images: int) -> str:
    return f"{images} images of engines.world, seeds from engines.splits 'train'; {chosen.epochs} epochs"


if __name__ == "__main__":
    sys.exit(main())
