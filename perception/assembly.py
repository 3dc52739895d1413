"""The parts of a pipeline, put together in one place: for a replay, for the bench, for the daemon.

`assemble` builds what a config and a rig ask for, and gives it warm; `Assembly.pipeline` adds those who take the
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from perception import backends, ladder, realtime
from perception.assume import Assumption
from perception.backends import Backend
from perception.budget import Ledger
from perception.clock import Clock, LiveClock, RealTimeReplayClock
from perception.config import Config
from perception.errors import ConfigError
from perception.fusion.camera_fusion import CameraFusion
from perception.governor import Enforcement, Governor, Rung, Settings, Undisturbed
from perception.ingest.live import Live
from perception.ingest.open_cameras import live_rig, open_cameras
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Rig
from perception.pipeline import Pipeline
from perception.stages import Channel, Fusion, Publisher, Recorder, Source

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
    assumption: Assumption | None = None

    def pipeline(self, publishers: Sequence[Publisher], recorders: Sequence[Recorder] = ()) -> Pipeline:
        """The pipeline, with a fusion of its own; under an assumption, its parts take the time that is assumed."""
        channels: Sequence[Mapping[str, Channel]] = self.backend.channels
        fusion: Fusion = CameraFusion(self.rig, self.config.fusion)
        if self.assumption is not None:
            channels, fusion = self.assumption.channels(channels), self.assumption.fusion(fusion)
            publishers = self.assumption.output(publishers)
        return Pipeline(
            channels=channels,
            fusion=fusion,
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
    *,
    assumption: Assumption | None = None,
) -> Iterator[Assembly[S]]:
    """Build backend, enforcement and source for a rig; on leaving, close the source, then the backend.

    `make_source` is given the backend, whose `threads` and `needed` a source may want to know, and the enforcement,
    which a source may ask what it need not decode. Without an `enforcement` the configured one decides; in stepped time
    there is none. Under an `assumption` the clock and the source are those that it gave. Raises a `PerceptionError` for
    what cannot be had.
    """
    if config.assume.profile is not None and assumption is None:
        raise ConfigError(f"assume.profile: {config.assume.profile}: only perception.run can assume another machine")
    refused = realtime.keep_memory()
    with ExitStack() as resources:
        levels = ladder.build(config, rig)
        backend = backends.build(config, rig, clock, levels.detectors)
        backend = replace(backend, notes=(*backend.notes, *filter(None, (refused,))))
        resources.callback(backend.close)
        decider = enforcement or _configured(config, rig, clock, levels.rungs)
        source = make_source(backend, decider)
        resources.callback(source.close)
        ledger = Ledger(config.budget.to_budget(), rig)
        yield Assembly(config, rig, clock, backend, decider, source, ledger, assumption)


def assemble_on_drive(config: Config, loop: int) -> AbstractContextManager[Assembly[Replay]]:
    """As `assemble`, on the configured drive at its own pace, `loop` times over; `ConfigError` where there is none."""
    if config.replay is None:
        raise ConfigError("nothing to replay: name a drive with --replay")
    drive, clock = open_drive(config.replay, config.rig), RealTimeReplayClock()

    def replay(backend: Backend, enforcement: Enforcement) -> Replay:
        return Replay(
            drive,
            clock,
            config.sync,
            threads=backend.threads,
            loop=loop,
            needed=backend.needed,
            enforcement=enforcement,
        )

    return assemble(config, drive.rig, clock, replay)


def assemble_on_cameras(
    config: Config, on_quiet: Callable[[Live, float], None]
) -> AbstractContextManager[Assembly[Live]]:
    """As `assemble`, on the configured cameras; `on_quiet` is told by them for how many seconds nothing has come."""
    rig, clock = live_rig(config), LiveClock()

    def cameras(backend: Backend, enforcement: Enforcement) -> Live:
        live = open_cameras(
            config,
            rig,
            clock,
            threads=backend.threads,
            needed=backend.needed,
            enforcement=enforcement,
            on_quiet=lambda seconds: on_quiet(live, seconds),
        )
        return live

    return assemble(config, rig, clock, cameras)


def _configured(config: Config, rig: Rig, clock: Clock, rungs: Sequence[Rung]) -> Enforcement:
    wanted = config.enforcement
    if clock.stepped or not wanted.enabled:
        return Undisturbed(rig)
    reserve_ns = None if wanted.reserve_ms is None else round(wanted.reserve_ms * 1e6)
    settings = Settings(reserve_ns, wanted.window, wanted.down_after, round(wanted.up_after_s * 1e9))
    return Governor(rungs, config.budget.to_budget(), settings)
