"""Self-play runs: a config becomes engines, speakers and a store, and every conversation is held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, AsyncExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml

from selfplay.errors import ConfigError, SelfplayError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.estimate import Forecast, forecast
from selfplay.generate.events import Event, Planned
from selfplay.generate.identity import check_folder, check_served, facts_of, plans_of, prices_of, settled
from selfplay.generate.participants import cast_of, engine_specs, side_of
from selfplay.generate.play import INTERRUPTED, interruptible, play
from selfplay.serve.vllm_backend import EngineSpec
from selfplay.store.store import DATABASE, RunStore, is_run

T = TypeVar("T")
PILOT = 32
"""Conversations that an estimate is made from."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was left. `stopped` is why conversations are still owed; None: all have ended."""

    folder: Path
    stopped: str | None = None


def generate(
    config: GenerateConfig,
    *,
    resume: bool = False,
    append: bool = False,
    on_event: Callable[[Event], None] | None = None,
    metrics_port: int | None = None,
) -> Run:
    """Hold every conversation of a run and return its folder.

    Ctrl-C finishes the turns in flight and returns; a second one stops at once.

    Args:
        resume: finish the run in `config.out` instead of starting one.
        append: grow the run in `config.out` by `config.conversations`.
        metrics_port: offer figures to Prometheus on this port of 127.0.0.1.

    Raises:
        SelfplayError: nothing usable was given, or an engine or the store gave up; what was said so far is kept.
    """
    if resume and append:
        raise ConfigError("--append starts more conversations, --resume finishes those there are; use one of them")
    config = with_folder(config, resume or append)
    return _run(_generate(config, resume, append, on_event or ignore, metrics_port))


def estimate(
    config: GenerateConfig, on_event: Callable[[Event], None] | None = None, keep: Path | None = None
) -> Forecast:
    """What a run would take in tokens, time, disk and money, measured on its first conversations.

    Args:
        keep: folder for the run of those; left out, nothing is kept.

    Raises:
        SelfplayError: see `generate`.
    """
    return _run(_estimate(config, on_event or ignore, keep))


def placement(config: GenerateConfig) -> list[EngineSpec]:
    """The engines a run would start and where. Starts nothing.

    Raises:
        SelfplayError: models that are not there, or cannot be placed on this machine.
    """
    sides = [side_of(config, "user"), side_of(config, "assistant")]
    groups = engine_specs(config, sides, Path(config.out or "runs"))
    return [spec for group in groups.values() for spec in group]


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; a second Ctrl-C, which cancels, is what Ctrl-C usually is."""
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def with_folder(config: GenerateConfig, existing: bool = False) -> GenerateConfig:
    """The config with a run folder; named after the time of day where none is given.

    Raises:
        ConfigError: a run is to be gone on with and no folder says which.
    """
    if config.out is not None:
        return config
    if existing:
        raise ConfigError("--resume and --append need --out, the folder of the run to go on with")
    return config.model_copy(update={"out": str(Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S"))})


def ignore(event: Event) -> None:
    """For runs nobody watches."""


async def _generate(
    config: GenerateConfig, resume: bool, append: bool, on_event: Callable[[Event], None], metrics_port: int | None
) -> Run:
    folder = Path(str(config.out))
    config = settled(config, resume=resume, append=append)
    plans = plans_of(config)
    facts = facts_of(config)
    check_folder(folder, facts, resume=resume, append=append)
    sides = [side_of(config, "user"), side_of(config, "assistant")]
    async with AsyncExitStack() as stack:
        store = RunStore(folder) if resume or append else RunStore.create(folder, facts, plans)
        stack.callback(store.close)
        if append:
            store.append(facts, plans_of(config, store.counts()[0]))
        (folder / "config.yaml").write_text(yaml.safe_dump(facts["config"], sort_keys=False), encoding="utf-8")
        on_event(Planned(*store.counts()))
        interrupt = stack.enter_context(interruptible())
        stopped = None
        if next(store.unfinished(), None) is not None:
            cast = await stack.enter_async_context(cast_of(config, sides, folder, on_event))
            check_served(store, {role: endpoint.model for role, endpoint in cast.endpoints.items()})
            await stack.enter_async_context(store)
            stopped = await play(config, store, cast, on_event, interrupt, metrics_port=metrics_port)
    return Run(folder, stopped)


async def _estimate(config: GenerateConfig, on_event: Callable[[Event], None], keep: Path | None) -> Forecast:
    """Play the first conversations of the plan to their end; in a folder that is thrown away, if none is named."""
    config = settled(config, resume=False, append=False)
    wanted = config.conversations or 0
    pilot = config.model_copy(update={"conversations": min(PILOT, wanted)})
    sides = [side_of(config, "user"), side_of(config, "assistant")]
    asked = time.monotonic()
    with TemporaryDirectory() as name:
        folder = keep or Path(name) / "pilot"
        store = RunStore.create(folder, {}, plans_of(pilot))
        with closing(store), interruptible() as interrupt:
            async with cast_of(config, sides, folder, on_event) as cast, store:
                began = time.monotonic()
                if await play(pilot, store, cast, on_event, interrupt) == INTERRUPTED:
                    raise asyncio.CancelledError
                seconds = time.monotonic() - began
            turns = [len(conversation.turns) for conversation in store.conversations()]
            totals = store.totals()
        size = (folder / DATABASE).stat().st_size
    return forecast(wanted, turns, totals, began - asked, seconds, size, prices_of(config.model_dump()))


Watch = Callable[[], AbstractContextManager[Callable[[Event], None]]]
"""What is told how a run goes, while it goes."""


def finish(config: GenerateConfig, what: str, watch: Watch = lambda: nullcontext(ignore)) -> None:
    """Begin a run, or go on with it, to its end.

    Raises:
        KeyboardInterrupt: Ctrl-C; turns in flight were finished.
        SelfplayError: it stopped for another reason.
    """
    with watch() as on_event:
        stopped = generate(config, resume=is_run(Path(str(config.out))), on_event=on_event).stopped
    if stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if stopped is not None:
        raise SelfplayError(f"{what} stopped: {stopped}; the same command goes on with it")
