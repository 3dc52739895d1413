"""The parts of a pipeline, put together in one place: for a replay, for the bench, for the daemon.

`assemble` builds what a config and a rig ask for, and gives it warm; `Assembly.pipeline` adds those who take the
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from perception import backends, ladder
from perception.backends import Backend
from perception.budget import Ledger
from perception.clock import Clock
from perception.config import Config
from perception.fusion.camera_fusion import CameraFusion
from perception.governor import Enforcement, Governor, Rung, Settings, Undisturbed
from perception.messages import Rig
from perception.pipeline import Pipeline
from perception.stages import Publisher, Recorder, Source

S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class Assembly(Generic[S]):
    """All parts but those that take the results, which want to know the others: warm and ready to run."""

    config: Config
    rig: Rig
    clock: Clock
    backend: Backend
    enforcement: Enforcement
    source: S
    ledger: Ledger

    def pipeline(self, publishers: Sequence[Publisher], recorders: Sequence[Recorder] = ()) -> Pipeline:
        """The pipeline, with a fusion of its own."""
        return Pipeline(
            channels=self.backend.channels,
            fusion=CameraFusion(self.rig, self.config.fusion),
            enforcement=self.enforcement,
            publishers=publishers,
            recorders=recorders,
            ledger=self.ledger,
            clock=self.clock,
        )

    def faults(self) -> list[str]:
        """What was wrong so far, with the data and with the channels, a line each."""
        return [*self.source.faults(), *self.backend.faults()]


@contextmanager
def assemble(
    config: Config,
    rig: Rig,
    clock: Clock,
    make_source: Callable[[Backend, Enforcement], S],
    enforcement: Enforcement | None = None,
) -> Iterator[Assembly[S]]:
    """Build backend, enforcement and source for a rig; on leaving, close the source, then the backend.

    `make_source` is given the backend, whose `threads` and `needed` a source may want to know, and the enforcement,
    which a source may ask what it need not decode. Without an `enforcement` the configured one decides; in stepped time
    there is none. Raises a `PerceptionError` for what cannot be had.
    """
    with ExitStack() as resources:
        levels = ladder.build(config, rig)
        backend = backends.build(config, rig, clock, levels.detectors)
        resources.callback(backend.close)
        decider = enforcement or _configured(config, rig, clock, levels.rungs)
        source = make_source(backend, decider)
        resources.callback(source.close)
        yield Assembly(config, rig, clock, backend, decider, source, Ledger(config.budget.to_budget(), rig))


def _configured(config: Config, rig: Rig, clock: Clock, rungs: Sequence[Rung]) -> Enforcement:
    wanted = config.enforcement
    if clock.stepped or not wanted.enabled:
        return Undisturbed(rig)
    reserve_ns = None if wanted.reserve_ms is None else round(wanted.reserve_ms * 1e6)
    settings = Settings(reserve_ns, wanted.window, wanted.down_after, round(wanted.up_after_s * 1e9))
    return Governor(rungs, config.budget.to_budget(), settings)
