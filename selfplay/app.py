"""The composition root: turns configs into real objects and runs them. Everything a command does, Python can do here.

Example:
    run = generate(GenerateConfig(conversations=8, out="runs/first"))
    for conversation in open_run(run.folder).conversations():
        print(conversation.ended, conversation.messages())
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import yaml

from assistant.speaker import AssistantSpeaker
from bench.nano import Pair, score_free, score_humans, tables
from bench.report import write_report
from selfplay.chat.conversation import Role
from selfplay.chat.events import Event, Planned
from selfplay.chat.models import load_renderer, locate_model
from selfplay.chat.rendering import ChatRenderer
from selfplay.chat.speakers import Speaker
from selfplay.config import GenerateConfig, load_recipe
from selfplay.data.loading import load
from selfplay.engine.runner import Journal, Runner
from selfplay.engine.scheduler import CapScheduler
from selfplay.errors import ConfigError
from selfplay.runs import check_folder, facts_of, plans_of
from selfplay.serve.backend import Backend
from selfplay.serve.turns import TurnSampler
from selfplay.serve.vllm_backend import EngineSpec, VllmBackend, on_cpu
from selfplay.store.export import Exported, ExportFormat, export
from selfplay.store.records import Unfinished
from selfplay.store.store import DATABASE, RunReader, RunStore
from selfplay.store.summary import RunSummary, summarise
from selfplay.train.config import TrainConfig
from selfplay.train.run import TrainResult
from simulator.guardrails import Guardrails
from simulator.speaker import UserSpeaker


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is complete."""

    folder: Path


def generate(config: GenerateConfig, *, resume: bool = False, on_event: Callable[[Event], None] | None = None) -> Run:
    """Hold every conversation of a run and return its folder.

    Args:
        resume: finish the run in `config.out` instead of starting one.

    Raises:
        SelfplayError: nothing usable was given, or an engine or the store gave up; what was said so far is kept.
    """
    return asyncio.run(_generate(with_folder(config, resume), resume, on_event or _ignore))


def with_folder(config: GenerateConfig, resume: bool = False) -> GenerateConfig:
    """The config with a run folder; named after the time of day where none is given.

    Raises:
        ConfigError: a run is to be resumed and no folder says which.
    """
    if config.out is not None:
        return config
    if resume:
        raise ConfigError("--resume needs --out, the folder of the run to finish")
    return config.model_copy(update={"out": str(Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S"))})


def open_run(folder: str | Path) -> RunReader:
    """A run for reading.

    Raises:
        StoreError: there is none.
    """
    return RunReader(Path(folder))


def train(config: TrainConfig, *, resume: bool = False, say: Callable[[str], None] = print) -> TrainResult:
    """Train a model by recipe.

    Raises:
        SelfplayError: found in recipe, data, template or model.
    """
    from selfplay.train.run import train as run_training

    if config.base is not None:
        config = config.model_copy(update={"base": str(locate_model(config.base, "base"))})
    return run_training(config, resume=resume, say=say)


def train_recipe(role: str, recipe: str, overrides: Mapping[str, Any]) -> TrainConfig:
    """A training recipe with overrides, checked to train the model that was asked for.

    Args:
        role: simulator, assistant or base.

    Raises:
        ConfigError: the recipe trains another role.
    """
    config = load_recipe(recipe, TrainConfig, overrides)
    expected = {"simulator": "user", "assistant": "assistant", "base": "all"}[role]
    if config.role != expected:
        raise ConfigError(f"recipe {recipe!r} trains role {config.role!r}; `train {role}` needs role: {expected}")
    return config


def summary(folder: str | Path) -> RunSummary:
    """A run in figures."""
    run = open_run(folder)
    try:
        return summarise(run.conversations(), run.totals())
    finally:
        run.close()


def export_run(folder: str | Path, format: ExportFormat, out: str | Path) -> Exported:
    """Write a run's finished conversations as training data.

    Raises:
        StoreError, ConfigError: no such run, or the file cannot be written.
    """
    run = open_run(folder)
    try:
        return export(run.conversations(), format, Path(out))
    finally:
        run.close()


def bench_nano(
    config: GenerateConfig, base: str, datasets: Sequence[str], out: str | Path, say: Callable[[str], None] = print
) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Score a pair on human conversations and in free self-play, guardrails off, sampling as the recipe has it.

    Args:
        config: the run for free self-play; its models are scored.
        base: the model both were fine-tuned from.
        datasets: human sets for likelihood and endings, beside the held-out mixture.
        out: folder of `scores.json`, `scores.md` and the run (`free/`, taken up again when it exists).

    Returns:
        Tables to print: title, header, rows.
    """
    pair = Pair(
        locate_model(base, "base"),
        locate_model(config.simulator, "simulator"),
        locate_model(config.assistant, "assistant"),
    )
    mixture = load_recipe("nano/simulator", TrainConfig).data
    people = load(mixture.datasets, split="held_out", held_out=mixture.held_out).conversations
    trained = load(["sgd_train"], split="train", held_out=mixture.held_out).conversations
    seen = frozenset(service for conversation in trained for service in conversation.meta["services"])
    sampling = config.user_sampling
    sheets = [score_humans("held-out mixture", people, pair, sampling, None, say)]
    for name in datasets:
        loaded = load([name])
        sheet = score_humans(name, loaded.conversations, pair, sampling, seen, say)
        sheet.left_out["rows that are no conversation"] = sum(loaded.skipped.values())
        sheets.append(sheet)
    free = Path(out) / "free"
    free_config = config.model_copy(update={"guardrails": Guardrails.off(), "out": str(free)})
    say(f"free self-play: {config.conversations} conversations")
    generate(free_config, resume=(free / DATABASE).exists())
    run = open_run(free)
    simulated = list(run.conversations())
    run.close()
    scores = score_free(people, simulated)
    write_report(Path(out), sheets, scores, simulated)
    return tables(sheets, scores)


class Person(Speaker, Journal, Protocol):
    """Somebody at a terminal: speaks for one side, and is shown everything that is said."""


def chat(config: GenerateConfig, role: Role, person: Person) -> None:
    """Hold one conversation between a person, who takes `role`, and the model of the other side. Nothing is stored.

    Raises:
        SelfplayError: the model cannot be used, or its engine is gone.
    """
    asyncio.run(_chat(config, role, person))


async def _chat(config: GenerateConfig, role: Role, person: Person) -> None:
    other: Role = "user" if role == "assistant" else "assistant"
    plan = plans_of(config)[0]
    with TemporaryDirectory() as logs:
        async with _speakers(config, {other: _side(config, other)}, Path(logs)) as speakers:
            runner = Runner({**speakers, role: person}, person, CapScheduler(1), sys.maxsize, _ignore)
            await runner.run([Unfinished(plan, ())])


def _ignore(event: Event) -> None:
    """For runs nobody watches."""


async def _generate(config: GenerateConfig, resume: bool, on_event: Callable[[Event], None]) -> Run:
    folder = Path(str(config.out))
    plans = plans_of(config)
    facts = facts_of(config)
    check_folder(folder, facts, resume)
    sides: dict[Role, Side] = {"user": _side(config, "user"), "assistant": _side(config, "assistant")}
    async with AsyncExitStack() as stack:
        store = RunStore(folder) if resume else RunStore.create(folder, facts, plans)
        stack.callback(store.close)
        (folder / "config.yaml").write_text(yaml.safe_dump(facts["config"], sort_keys=False), encoding="utf-8")
        owed = store.unfinished()
        on_event(Planned(len(plans), len(plans) - len(owed)))
        if owed:
            speakers = await stack.enter_async_context(_speakers(config, sides, folder))
            await stack.enter_async_context(store)
            scheduler = CapScheduler(config.max_in_flight)
            await Runner(speakers, store, scheduler, config.max_rounds, on_event).run(owed)
    return Run(folder)


@dataclass(frozen=True, slots=True)
class Side:
    """A model folder with its renderer, checked before any engine starts."""

    folder: Path
    renderer: ChatRenderer


def _side(config: GenerateConfig, role: Role) -> Side:
    folder = locate_model(*((config.simulator, "simulator") if role == "user" else (config.assistant, "assistant")))
    return Side(folder, load_renderer(folder, role))


@asynccontextmanager
async def _speakers(
    config: GenerateConfig, sides: Mapping[Role, Side], logs: Path
) -> AsyncIterator[dict[Role, Speaker]]:
    """The given sides with their engines up; one engine when both name the same folder."""
    async with AsyncExitStack() as stack:
        engines = await _start_engines(config, sorted({side.folder for side in sides.values()}), logs)
        for engine in engines.values():
            stack.push_async_callback(engine.close)
        yield {role: _speaker(config, role, side, engines[side.folder]) for role, side in sides.items()}


def _speaker(config: GenerateConfig, role: Role, side: Side, engine: Backend) -> Speaker:
    if role == "user":
        sampler = TurnSampler(engine, side.renderer, role, config.user_sampling, config.end_bias)
        return UserSpeaker(sampler, config.guardrails)
    return AssistantSpeaker(TurnSampler(engine, side.renderer, role, config.assistant_sampling))


async def _start_engines(config: GenerateConfig, folders: Sequence[Path], logs: Path) -> dict[Path, Backend]:
    """Start the engines, cores dealt out evenly; if one fails, the others are stopped.

    On a CPU all start at once. On a GPU each measures free memory while it starts, so they go one after the other.
    """
    cores = sorted(os.sched_getaffinity(0))
    specs = [
        EngineSpec(
            folder,
            logs / f"engine-{number}.log",
            _share(cores, number, len(folders)),
            1 / len(folders),
            config.max_in_flight,
            config.kv_cache_gib,
        )
        for number, folder in enumerate(folders)
    ]
    turns = asyncio.Semaphore(len(specs) if on_cpu() else 1)

    async def start(spec: EngineSpec) -> VllmBackend:
        async with turns:
            return await VllmBackend.start(spec)

    started = await asyncio.gather(*map(start, specs), return_exceptions=True)
    errors = [outcome for outcome in started if isinstance(outcome, BaseException)]
    engines = [outcome for outcome in started if isinstance(outcome, VllmBackend)]
    if errors:
        await asyncio.gather(*(engine.close() for engine in engines))
        raise errors[0]
    return dict(zip(folders, engines, strict=True))


def _share(cores: list[int], number: int, of: int) -> tuple[int, ...]:
    return tuple(cores[number::of]) or (cores[number % len(cores)],)
