"""The Python API: every command's function under one roof, and the few that join packages which do not know each other.

Example:
    run = generate(GenerateConfig(conversations=8, out="runs/first"))
    with open_run(run.folder) as finished:
        for conversation in finished.conversations():
            print(conversation.ended, conversation.messages())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assistant.train import ASSISTANT
from bench.assistant.run import judge_questions, report_judgments
from bench.config import JudgeConfig, ScorecardConfig
from bench.corpus.run import describe_corpora
from bench.nano import run as nano
from bench.simulator import run as simulator
from selfplay.chat.conversation import TrainedRole
from selfplay.chat.models import EMBEDDED, locate_model
from selfplay.curate.config import CurateConfig
from selfplay.curate.run import curate
from selfplay.data.catalogue import dataset_named, datasets
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.pipeline import clean
from selfplay.data.loading import first_conversation
from selfplay.data.mixing import mix
from selfplay.generate.chat import chat
from selfplay.generate.config import GenerateConfig
from selfplay.generate.estimate import estimate_run
from selfplay.generate.run import finish_run, generate, placement, with_folder
from selfplay.loop.config import LoopConfig
from selfplay.loop.estimate import estimate_loop
from selfplay.loop.lineage import lineage
from selfplay.loop.report.build import loop_report
from selfplay.loop.run import loop
from selfplay.loop.status import loop_status
from selfplay.store.decisions import decisions_on
from selfplay.store.export import export_run
from selfplay.store.store import open_run
from selfplay.store.summary import summarise_run
from selfplay.train.config import TrainConfig
from selfplay.train.inspect import TokenView
from selfplay.train.inspect import inspect as inspect_tokens
from selfplay.train.merge import merge
from selfplay.train.roles import BASE, load_training_recipe
from selfplay.train.run import TrainResult
from selfplay.train.run import train as train_side
from simulator.guardrails import Guardrails
from simulator.model import load_prompted_renderer
from simulator.train import SIMULATOR

if TYPE_CHECKING:
    from bench.nano.sheet import NanoScores
    from bench.simulator.run import Candidate
    from bench.simulator.scorecard import Scorecard

__all__ = [
    "CleanConfig",
    "CurateConfig",
    "GenerateConfig",
    "JudgeConfig",
    "LoopConfig",
    "ScorecardConfig",
    "TrainConfig",
    "chat",
    "clean",
    "curate",
    "dataset_named",
    "datasets",
    "decisions_on",
    "describe_corpora",
    "estimate_loop",
    "estimate_run",
    "export_run",
    "first_conversation",
    "generate",
    "inspect",
    "judge_questions",
    "lineage",
    "load_training_recipe",
    "loop",
    "loop_report",
    "loop_status",
    "merge",
    "mix",
    "open_run",
    "placement",
    "report_judgments",
    "score_nano",
    "score_simulators",
    "summarise_run",
    "train",
    "with_folder",
]

Say = Callable[[str], None]
SIDES = {side.role: side for side in (SIMULATOR, ASSISTANT, BASE)}
"""What is trained, by the role of the recipe."""


def train(config: TrainConfig, *, resume: bool = False, say: Say = print) -> TrainResult:
    """Train the side that a recipe's role names.

    Raises:
        SelfplayError: found in recipe, data, template or model; or training broke.
    """
    return train_side(config, SIDES[config.role], resume=resume, say=say)


def inspect(
    source: str, template: str, role: TrainedRole, base: str = EMBEDDED, number: int = 1, id: str | None = None
) -> TokenView:
    """The tokens of one conversation as training a role sees it; see `selfplay.train.inspect.inspect`."""
    return inspect_tokens(source, template, SIDES[role], base, number, id)


def score_simulators(config: ScorecardConfig, play: GenerateConfig, out: str | Path, say: Say = print) -> Scorecard:
    """Score simulated users beside people; models that have no conversations yet hold some first.

    Args:
        play: the free self-play of each such model, guardrails off: what it says is what is scored. Kept in `out/runs`
            and finished when it is there.

    Raises:
        SelfplayError: nothing to score, or models, data or runs that cannot be used.
    """

    def hold(candidate: Candidate, folder: Path) -> None:
        model = {"model": str(candidate.folder), "prompted": candidate.prompted, "sampling": candidate.sampling}
        _free_play(play, model, folder, f"free self-play of {candidate.row}")

    return simulator.score_simulators(
        config,
        out,
        sampling=play.simulator.sampling,
        play=hold,
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
        datasets: human sets for likelihood and endings, beside the held-out share of what the simulator learned from.

    Raises:
        SelfplayError: models or data that cannot be used.
    """
    from bench.nano.sheet import Pair

    pair = Pair(
        locate_model(base, "base"),
        locate_model(config.simulator.model, "simulator"),
        locate_model(config.assistant.model, "assistant"),
    )

    def hold(folder: Path) -> None:
        _free_play(config, {}, folder, "free self-play")

    return nano.score_nano(pair, datasets, out, sampling=config.simulator.sampling, play=hold, say=say)


def _free_play(config: GenerateConfig, model: dict[str, object], folder: Path, what: str) -> None:
    user = config.simulator.model_copy(update={**model, "guardrails": Guardrails.off()})
    finish_run(config.model_copy(update={"simulator": user, "out": str(folder)}), what)
