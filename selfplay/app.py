"""The composition root: turns configs into real objects and runs them. Everything a command does, Python can do here.

Example:
    run = generate(GenerateConfig(conversations=8, out="runs/first"))
    with open_run(run.folder) as finished:
        for conversation in finished.conversations():
            print(conversation.ended, conversation.messages())
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench.assistant.run import bench_questions as bench_questions
from bench.assistant.run import report_judgments as report_judgments
from bench.config import JudgeConfig as JudgeConfig
from bench.config import ScorecardConfig as ScorecardConfig
from bench.corpus.run import describe_corpora as describe_corpora
from bench.nano.sheet import NanoScores, Pair
from bench.simulator import run as simulator_scores
from bench.simulator.run import Candidate
from bench.simulator.scorecard import Scorecard
from selfplay.chat.conversation import Conversation, Role
from selfplay.chat.models import locate_model
from selfplay.chat.speakers import Speaker
from selfplay.curate.config import CurateConfig as CurateConfig
from selfplay.curate.run import Curated as Curated
from selfplay.curate.run import curate as curate
from selfplay.data.catalogue import Dataset, catalogue, locate
from selfplay.data.catalogue import entry_named as entry_named
from selfplay.data.catalogue import local_file as local_file
from selfplay.data.cleaning.config import CleanConfig as CleanConfig
from selfplay.data.cleaning.pipeline import Progress, clean_sources
from selfplay.data.cleaning.report import Tally
from selfplay.data.formats import FORMATS as FORMATS
from selfplay.data.loading import Loaded, stream
from selfplay.data.mixing import Mixed, parse_weights
from selfplay.data.mixing import mix as mix_sources
from selfplay.generate.config import GenerateConfig
from selfplay.generate.identity import plans_of, prices_of
from selfplay.generate.participants import cast_of, side_of
from selfplay.generate.play import INTERRUPTED as INTERRUPTED
from selfplay.generate.run import Run as Run
from selfplay.generate.run import estimate as estimate
from selfplay.generate.run import finish, ignore
from selfplay.generate.run import generate as generate
from selfplay.generate.run import placement as placement
from selfplay.generate.run import with_folder as with_folder
from selfplay.generate.runner import Journal, Runner
from selfplay.generate.scheduler import Lane, Scheduler
from selfplay.loop.config import LoopConfig as LoopConfig
from selfplay.loop.estimate import Foreseen as Foreseen
from selfplay.loop.estimate import foresee as foresee
from selfplay.loop.lineage import Made as Made
from selfplay.loop.lineage import lineage as lineage
from selfplay.loop.report.build import loop_report as loop_report
from selfplay.loop.run import loop as loop
from selfplay.loop.run import loop_status as loop_status
from selfplay.loop.run import progress_of as progress_of
from selfplay.store.decisions import verdicts_on as verdicts_on
from selfplay.store.export import Exported, ExportFormat, export
from selfplay.store.records import Unfinished
from selfplay.store.store import open_run as open_run
from selfplay.store.summary import RunSummary, summarise
from selfplay.train.inspect import TrainPlan as TrainPlan
from selfplay.train.inspect import inspect as inspect
from selfplay.train.inspect import merge_adapters as merge_adapters
from selfplay.train.inspect import plan_training as plan_training
from selfplay.train.inspect import train as train
from selfplay.train.inspect import train_recipe as train_recipe
from selfplay.train.run import TrainResult as TrainResult
from simulator.guardrails import Guardrails
from simulator.model import load_prompted_renderer

Say = Callable[[str], None]


def summary(folder: str | Path) -> RunSummary:
    """A run in figures."""
    with open_run(folder) as run:
        return summarise(run.conversations(), run.totals(), prices_of(run.facts().get("config", {})))


def export_run(folder: str | Path, format: ExportFormat, out: str | Path) -> Exported:
    """Write a run's finished conversations as training data.

    Raises:
        StoreError, ConfigError: no such run, or the file cannot be written.
    """
    with open_run(folder) as run:
        return export(run.conversations(), format, Path(out))


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


def score_simulators(config: ScorecardConfig, play: GenerateConfig, out: str | Path, say: Say = print) -> Scorecard:
    """Score simulated users beside people; models that have no conversations yet hold some first.

    Args:
        play: the free self-play of each such model, guardrails off: what it says is what is scored. Kept in `out/runs`
            and finished when it is there.

    Raises:
        SelfplayError: nothing to score, or models, data or runs that cannot be used.
    """

    def held(candidate: Candidate, folder: Path) -> None:
        settings = {
            "simulator": str(candidate.folder),
            "prompted_user": candidate.prompted,
            "user_sampling": candidate.sampling,
        }
        _free_play(play.model_copy(update=settings), folder, f"free self-play of {candidate.row}")

    sampling = play.user_sampling
    return simulator_scores.score_simulators(
        config,
        out,
        sampling=sampling,
        play=held,
        prompted_renderer=load_prompted_renderer,
        seed=play.seed,
        say=say,
    )


def score_nano(
    config: GenerateConfig, base: str, datasets: Sequence[str], out: str | Path, say: Say = print
) -> NanoScores:
    """Score a pair on human conversations and in free self-play, guardrails off, sampled as the recipe has it.

    Args:
        config: the run for free self-play; its models are scored.
        base: the model both were fine-tuned from.
        datasets: human sets for likelihood and endings, beside the held-out mixture.

    Raises:
        SelfplayError: models or data that cannot be used.
    """
    pair = Pair(
        locate_model(base, "base"),
        locate_model(config.simulator, "simulator"),
        locate_model(config.assistant, "assistant"),
    )

    def held(folder: Path) -> None:
        _free_play(config, folder, "free self-play")

    return simulator_scores.score_nano(pair, datasets, out, sampling=config.user_sampling, play=held, say=say)


def _free_play(config: GenerateConfig, folder: Path, what: str) -> None:
    finish(config.model_copy(update={"guardrails": Guardrails.off(), "out": str(folder)}), what)


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
        async with cast_of(config, [side_of(config, other)], Path(logs), ignore) as cast:
            seat = len(cast.lanes)
            scheduler = Scheduler([*cast.lanes, Lane()], {**cast.places, role: [seat]}, 1)
            runner = Runner({**cast.speakers, role: {seat: person}}, person, scheduler, sys.maxsize, ignore)
            await runner.run([Unfinished(plan, ())])
