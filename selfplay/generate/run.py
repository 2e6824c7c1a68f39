"""Self-play runs: settings become engines, speakers and a store, and every conversation is played to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from selfplay.chat.models import RoleModel
from selfplay.errors import ConfigError, SelfplayError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import Event, RunOpened
from selfplay.generate.identity import check_folder, check_served_models, run_facts
from selfplay.generate.participants import engine_specs, open_participants, resolve_sides
from selfplay.generate.plan import (
    Openings,
    conversation_count,
    conversation_specs,
    openings_of,
    with_conversation_count,
)
from selfplay.generate.play import INTERRUPTED, interruptible, play
from selfplay.serve.vllm_backend import EngineSpec
from selfplay.store.records import ConversationSpec
from selfplay.store.store import RunStore, is_run

T = TypeVar("T")


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
    return run_to_end(_generate(config, resume, append, on_event or no_events, metrics_port))


def placement(config: GenerateConfig) -> list[EngineSpec]:
    """The engines a run would start and where. Starts nothing.

    Raises:
        SelfplayError: models that are not there, or cannot be placed on this machine.
    """
    groups = engine_specs(config, resolve_sides(config), Path(config.out or "runs"))
    return [spec for group in groups.values() for spec in group]


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
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


def no_events(event: Event) -> None:
    """For runs nobody watches."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """Everything a run is made of, resolved once: settings with their number of conversations, openings, models."""

    config: GenerateConfig
    openings: Openings
    sides: list[RoleModel]

    def specs(self, start: int = 0) -> Iterator[ConversationSpec]:
        """The conversations from number `start` on."""
        return conversation_specs(self.config, self.openings, start)

    def facts(self) -> dict[str, Any]:
        """What makes this run this run; see `run_facts`."""
        return run_facts(self.config, self.sides, self.openings)


def prepare(config: GenerateConfig, *, resume: bool = False, append: bool = False) -> PreparedRun:
    """Read the openings, count the conversations, and find and check both models, each once.

    Raises:
        SelfplayError: something of it cannot be used.
    """
    openings = openings_of(config)
    config = with_conversation_count(config, openings, resume=resume, append=append)
    conversation_count(config, openings)  # a resumed or grown run needs its openings too
    return PreparedRun(config, openings, resolve_sides(config))


async def _generate(
    config: GenerateConfig, resume: bool, append: bool, on_event: Callable[[Event], None], metrics_port: int | None
) -> Run:
    folder = Path(str(config.out))
    run = prepare(config, resume=resume, append=append)
    facts = run.facts()
    check_folder(folder, facts, resume=resume, append=append)
    async with AsyncExitStack() as stack:
        store = RunStore(folder) if resume or append else RunStore.create(folder, facts, run.specs())
        stack.callback(store.close)
        if append:
            store.append(facts, run.specs(store.counts()[0]))
        (folder / "config.yaml").write_text(yaml.safe_dump(facts["config"], sort_keys=False), encoding="utf-8")
        on_event(RunOpened(*store.counts()))
        interrupt = stack.enter_context(interruptible())
        stopped = None
        if next(store.unfinished(), None) is not None:
            sides = await stack.enter_async_context(open_participants(run.config, run.sides, folder, on_event))
            check_served_models(store, {role: endpoint.model for role, endpoint in sides.endpoints.items()})
            await stack.enter_async_context(store)
            stopped = await play(run.config, store, sides, on_event, interrupt, metrics_port=metrics_port)
    return Run(folder, stopped)


Watch = Callable[[], AbstractContextManager[Callable[[Event], None]]]
"""What is told how a run goes, while it goes."""


def finish_run(config: GenerateConfig, what: str, watch: Watch = lambda: nullcontext(no_events)) -> None:
    """Begin a run, or go on with it, to its end.

    Raises:
        KeyboardInterrupt: Ctrl-C; turns in flight were finished.
        SelfplayError: it stopped for another reason.
    """
    with watch() as on_event:
        stopped = generate(config, resume=is_run(str(config.out)), on_event=on_event).stopped
    if stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if stopped is not None:
        raise SelfplayError(f"{what} stopped: {stopped}; the same command goes on with it")
