"""The training loop: AdamW, a cosine per phase, a moving average of the weights, checkpoints to resume from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engines.train import dataset
from engines.train.config import Phase, TrainConfig
from engines.train.dataset import Example
from engines.train.loss import Batch, loss, total
from engines.train.model import StockDetector
from perception.errors import ConfigError

_SETTLED: Final = 1600  # images that the final batch statistics are of


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to: mean training loss by term, and what `validate` measured after it."""

    losses: Mapping[str, float]
    measured: Mapping[str, float]


def train(
    examples: Sequence[Example],
    validate: Callable[[StockDetector], Mapping[str, float]],
    config: TrainConfig,
    checkpoint: Path,
    threads: int,
) -> tuple[StockDetector, list[Epoch]]:
    """Train from scratch, or go on from `checkpoint` if it is there: the network of averaged weights, and the history.

    The batch statistics of that network are measured on whole images at the end. `validate` is given the network of
    averaged weights after each epoch. Raises `ConfigError` for a checkpoint of another configuration or another number
    of examples.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    run = _Run(config, len(examples) // config.batch)
    identity = {**config.model_dump(mode="json"), "examples": len(examples)}
    if checkpoint.is_file():
        run.restore(checkpoint, identity)
    with _progress() as progress:
        for epoch in range(len(run.history), config.epochs):
            phase, first = config.phase_of(epoch)
            task = progress.add_task(f"epoch {epoch + 1}/{config.epochs}", total=run.steps_per_epoch, status="")
            losses: dict[str, float] = {}
            batches = dataset.batches(
                examples, config.input_size, config.batch, seed=config.seed, epoch=epoch, blank=config.blank
            )
            for step, batch in enumerate(batches, start=(epoch - first) * run.steps_per_epoch):
                terms = run.step(batch, phase, step)
                losses = {name: losses.get(name, 0.0) + term / run.steps_per_epoch for name, term in terms.items()}
                progress.update(task, advance=1, status=_listed(terms))
            measured = validate(run.average)
            run.history.append(Epoch(losses, measured))
            progress.remove_task(task)
            progress.console.print(f"epoch {epoch + 1}/{config.epochs}  {_listed(losses)}; {_listed(measured)}")
            run.save(checkpoint, identity)
    whole = dataset.whole_images(examples, config.input_size, config.batch, seed=config.seed, count=_SETTLED)
    _settle(run.average, whole)
    return run.average, run.history


@torch.no_grad()
def _settle(network: StockDetector, batches: Iterable[np.ndarray]) -> None:
    """Measure the batch statistics anew, on whole images: those of training are mostly of windows around objects.

    On the towns that are looked at after each epoch, that is worth 0.6 points of mAP50 and 2.9 of mAP50-95 (Wu and
    Johnson 2021).
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over all batches
    network.train()
    for images in batches:
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.from_numpy(images).permute(0, 3, 1, 2).float().to(memory_format=torch.channels_last))
    network.eval()


class _Run:
    """All that changes while training."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self._config = config
        self.steps_per_epoch = steps_per_epoch
        self.history: list[Epoch] = []
        self._network = StockDetector().to(memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self._network).eval()
        self._optimiser = torch.optim.AdamW(_groups(self._network, config.weight_decay), lr=0.0, fused=True)

    def step(self, batch: Batch, phase: Phase, step: int) -> dict[str, float]:
        """One update, of so many in this phase; the terms of its loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate(phase, step)
        with torch.autocast("cpu", torch.bfloat16):
            scores, regression = self._network(batch.images.float().to(memory_format=torch.channels_last))
        terms = loss(scores, regression, batch)
        self._optimiser.zero_grad()
        total(terms, phase.angle).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.gradient_norm)
        self._optimiser.step()
        self._follow(min(self._config.average_decay, (1 + step) / (10 + step)))
        return {name: term.item() for name, term in terms.items()}

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write a checkpoint, atomically: an interrupted run has the one before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        state = {
            "identity": dict(identity),
            "history": [asdict(epoch) for epoch in self.history],
            "network": self._network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Go back to a checkpoint."""
        state = torch.load(path, weights_only=True)
        changed = sorted(key for key in identity if identity[key] != _as_json(state["identity"].get(key)))
        if changed:
            raise ConfigError(f"{path}: of a run with another {', '.join(changed)}; remove it to start again")
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self._network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])

    def _learning_rate(self, phase: Phase, step: int) -> float:
        """Rise linearly, fall as half a cosine to a hundredth (Loshchilov and Hutter 2017)."""
        warm_up_steps = self._config.warm_up_steps
        if step < warm_up_steps:
            return phase.learning_rate * (step + 1) / warm_up_steps
        steps = max(phase.epochs * self.steps_per_epoch - warm_up_steps, 1)
        done = min((step - warm_up_steps) / steps, 1.0)
        return phase.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Let the average follow the network: weights slowly, batch statistics and their counts too."""
        own = self._network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - decay)
            else:
                value.copy_(own[name])


def _groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay is for convolutions' weights, not for biases and normalisation."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _listed(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items())


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )  # fmt: skip
