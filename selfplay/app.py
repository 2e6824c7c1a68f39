"""The composition root: turns configs into real objects and runs them. Everything a command does, Python can do here.

Example:
    run = generate(GenerateConfig(conversations=8, out="runs/first"))
    for conversation in open_run(run.folder).conversations():
        print(conversation.ended, conversation.messages())
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import yaml

from bench.nano import Pair, score_free, score_humans, tables
from bench.report import write_report
from selfplay.chat.conversation import Conversation, Role
from selfplay.chat.events import Event, Planned
from selfplay.chat.models import locate_model
from selfplay.chat.speakers import Speaker
from selfplay.config import GenerateConfig, load_recipe
from selfplay.data.catalogue import Dataset, catalogue, locate
from selfplay.data.catalogue import entry_named as entry_named
from selfplay.data.catalogue import local_file as local_file
from selfplay.data.cleaning.config import CleanConfig as CleanConfig
from selfplay.data.cleaning.pipeline import Progress, clean_sources
from selfplay.data.cleaning.tally import Tally
from selfplay.data.formats import FORMATS as FORMATS
from selfplay.data.loading import Loaded, load, stream
from selfplay.data.mixing import Mixed, parse_weights
from selfplay.data.mixing import mix as mix_sources
from selfplay.engine.runner import Journal, Runner
from selfplay.engine.scheduler import Lane, Scheduler
from selfplay.errors import ConfigError, SelfplayError
from selfplay.playing import INTERRUPTED as INTERRUPTED
from selfplay.playing import interruptible, play
from selfplay.runs import check_folder, check_served, facts_of, plans_of, prices_of, settled
from selfplay.serve.vllm_backend import EngineSpec
from selfplay.sides import cast_of, engine_specs, side_of
from selfplay.store.export import Exported, ExportFormat, export
from selfplay.store.forecast import Forecast, forecast
from selfplay.store.records import Unfinished
from selfplay.store.store import DATABASE, RunReader, RunStore
from selfplay.store.summary import RunSummary, summarise
from selfplay.train.config import TrainConfig
from selfplay.train.run import TrainResult as TrainResult
from selfplay.training import TrainPlan as TrainPlan
from selfplay.training import inspect as inspect
from selfplay.training import merge_adapters as merge_adapters
from selfplay.training import plan_training as plan_training
from selfplay.training import train as train
from selfplay.training import train_recipe as train_recipe
from simulator.guardrails import Guardrails

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
    return _run(_generate(config, resume, append, on_event or _ignore, metrics_port))


def estimate(config: GenerateConfig, on_event: Callable[[Event], None] | None = None) -> Forecast:
    """What a run would take in tokens, time, disk and money, measured on its first conversations. Keeps nothing.

    Raises:
        SelfplayError: see `generate`.
    """
    return _run(_estimate(config, on_event or _ignore))


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


def open_run(folder: str | Path) -> RunReader:
    """A run for reading.

    Raises:
        StoreError: there is none.
    """
    return RunReader(Path(folder))


def summary(folder: str | Path) -> RunSummary:
    """A run in figures."""
    run = open_run(folder)
    try:
        return summarise(run.conversations(), run.totals(), prices_of(run.facts().get("config", {})))
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
    held_out = load(parse_weights(mixture.datasets), split="held_out", held_out=mixture.held_out).conversations
    people = [conversation for conversation in held_out if not conversation.context]
    trained = load(["sgd_train"], split="train", held_out=mixture.held_out).conversations
    seen = frozenset(service for conversation in trained for service in conversation.meta["services"])
    sampling = config.user_sampling
    sheets = [score_humans("held-out mixture", people, pair, sampling, None, say)]
    for name in datasets:
        loaded = load([name])
        sheet = score_humans(name, loaded.conversations, pair, sampling, seen, say)
        sheet.left_out["rows that are no conversation"] = loaded.refused.counts.total()
        sheets.append(sheet)
    free = Path(out) / "free"
    free_config = config.model_copy(update={"guardrails": Guardrails.off(), "out": str(free)})
    say(f"free self-play: {config.conversations} conversations")
    if (stopped := generate(free_config, resume=(free / DATABASE).exists()).stopped) is not None:
        raise SelfplayError(f"free self-play stopped: {stopped}; the same command goes on with it")
    run = open_run(free)
    simulated = list(run.conversations())
    run.close()
    scores = score_free(people, simulated)
    write_report(Path(out), sheets, scores, simulated)
    return tables(sheets, scores)


def clean(
    sources: Sequence[str],
    out: str | Path,
    config: CleanConfig | None = None,
    *,
    format: str | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Tally:
    """Clean datasets into one `.jsonl` or `.parquet` file of messages, and count what each step did.

    Args:
        sources: catalogue names, files, or `organisation/name` on the hub.
        format: the source schema, where it is not recognised.
        workers: processes; None: one per core.
        on_progress: called with the rows read so far and the share of the sources they make.

    Raises:
        ConfigError, DataError, ModelError: see `selfplay.data.cleaning.pipeline.clean_sources`.
    """
    located = [locate(source) for source in sources]
    return clean_sources(
        located, Path(out), config or CleanConfig(), format=format, workers=workers, on_progress=on_progress
    )


def mix(sources: Sequence[str], out: str | Path, *, held_out: float = 0.05, seed: int = 0) -> Mixed:
    """Mix datasets, each `name` or `name=weight`, into `train.jsonl` and `validation.jsonl` in a folder.

    Raises:
        ConfigError: a weight that cannot be used.
        DataError: a dataset cannot be read, or a half comes out empty.
    """
    return mix_sources(parse_weights(list(sources)), Path(out), held_out=held_out, seed=seed)


def datasets(language: str | None = None, generation: str | None = None, text: str = "") -> list[Dataset]:
    """The catalogue, or the part of it with these labels and this text in its name or title."""
    return [
        entry
        for entry in catalogue().values()
        if language in (None, entry.language)
        and generation in (None, entry.generation)
        and text.lower() in f"{entry.name} {entry.title}".lower()
    ]


def first_conversation(name: str) -> Conversation | None:
    """The first conversation of a file, or of a catalogue entry whose file is on this machine."""
    entry = catalogue().get(name)
    if entry is not None and local_file(entry) is None:
        return None
    return next(stream(locate(name), Loaded()), None)


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
    plan = next(plans_of(config))
    with TemporaryDirectory() as logs:
        async with cast_of(config, [side_of(config, other)], Path(logs), _ignore) as cast:
            seat = len(cast.lanes)
            scheduler = Scheduler([*cast.lanes, Lane()], {**cast.places, role: [seat]}, 1)
            runner = Runner({**cast.speakers, role: {seat: person}}, person, scheduler, sys.maxsize, _ignore)
            await runner.run([Unfinished(plan, ())])


def _ignore(event: Event) -> None:
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


async def _estimate(config: GenerateConfig, on_event: Callable[[Event], None]) -> Forecast:
    """Play the first conversations of the plan to their end, in a folder that is thrown away."""
    config = settled(config, resume=False, append=False)
    wanted = config.conversations or 0
    pilot = config.model_copy(update={"conversations": min(PILOT, wanted)})
    sides = [side_of(config, "user"), side_of(config, "assistant")]
    asked = time.monotonic()
    with TemporaryDirectory() as name:
        folder = Path(name) / "pilot"
        store = RunStore.create(folder, {}, plans_of(pilot))
        with closing(store), interruptible() as interrupt:
            async with cast_of(config, sides, folder, on_event) as cast, store:
                began = time.monotonic()
                await play(pilot, store, cast, on_event, interrupt)
                seconds = time.monotonic() - began
            turns = [len(conversation.turns) for conversation in store.conversations()]
            totals = store.totals()
        size = (folder / DATABASE).stat().st_size
    return forecast(wanted, turns, totals, began - asked, seconds, size, prices_of(config.model_dump()))
