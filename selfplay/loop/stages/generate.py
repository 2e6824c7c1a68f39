"""The generate stage: an iteration's simulator and assistant hold its conversations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfplay.chat.models import content_hash
from selfplay.generate.config import GenerateConfig
from selfplay.generate.run import Watch, finish_run
from selfplay.loop.stages.stage import RUN, Job, LoopContext, stage_identity
from selfplay.loop.stopping import TOKENS
from selfplay.recipe import flat, identity, load_recipe
from selfplay.seeds import derive_seed
from selfplay.store.store import open_run
from selfplay.store.summary import summarise

MODELS = ("simulator.model", "assistant.model")
"""Settings that are among the inputs of a stage by content."""


def generate_job(context: LoopContext, iteration: int) -> Job:
    """The self-play of an iteration."""
    config = self_play(context, iteration)
    models = {
        "simulator": content_hash(Path(config.simulator.model)),
        "assistant": content_hash(Path(config.assistant.model)),
    }
    made = stage_identity(identity(config), MODELS, **models)
    return Job(iteration, "generate", made, Path(str(config.out)), lambda: generate_stage(config, context.watch))


def self_play(context: LoopContext, iteration: int) -> GenerateConfig:
    """The settings of an iteration's run."""
    user, assistant = context.simulator(iteration), context.assistant(iteration - 1)
    seed = derive_seed(context.config.seed, iteration) % 2**31
    given = {"simulator.model": str(user), "assistant.model": str(assistant), "out": str(context.at(iteration, RUN))}
    return self_play_recipe(context, {"seed": seed}, given)


def self_play_recipe(context: LoopContext, overrides: Mapping[str, Any], given: Mapping[str, Any]) -> GenerateConfig:
    """The recipe of self-play: `overrides` below the stage's settings, `given` above them."""
    stage = context.config.generate
    return load_recipe(stage.recipe, GenerateConfig, overrides, {**flat(stage.settings), **given})


def generate_stage(config: GenerateConfig, watch: Watch) -> dict[str, Any]:
    """Play the run to its end, and summarise it."""
    finish_run(config, "generating", watch)
    with open_run(str(config.out)) as run:
        totals = run.totals()
        summary = summarise(run.conversations(), totals, {})
    sampled = sum(usage.sampled_tokens for usage in totals.by_role.values())
    return {"conversations": summary.conversations, "rounds": summary.rounds.mean, TOKENS: sampled}
