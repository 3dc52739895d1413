"""The parts of a pipeline, put together in one place: for a replay, for the bench, for the daemon.

with assemble(config, rig, clock, make_source) as parts:
    pipeline = parts.pipeline(publishers, recorders)
    for tick in pipeline.run(parts.source):
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from perception import backends
from perception.backends import Backend
from perception.budget import Ledger
from perception.clock import Clock
from perception.config import Config
from perception.fusion.camera_fusion import CameraFusion
from perception.governor import Enforcement, Undisturbed
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
            publishers=publishers,
            recorders=recorders,
            ledger=self.ledger,
            clock=self.clock,
        )

    def faults(self) -> list[str]:
        """What was wrong so far, with the data and with the channels, a line each."""
        return list(self.source.faults())


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
        backend = backends.build(config, rig, clock)
        resources.callback(backend.close)
        decider = enforcement or Undisturbed(rig)
        source = make_source(backend, decider)
        resources.callback(source.close)
        yield Assembly(config, rig, clock, backend, decider, source, Ledger(config.budget.to_budget(), rig))
