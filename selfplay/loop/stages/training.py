"""The training stages: UserGPT from human conversations, and the next assistant from curated and human ones.

A stage resumes from what is there, and adapters are merged into a whole model that the next stages can serve.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from assistant.train import ASSISTANT as ASSISTANT_SIDE
from selfplay.chat.models import content_hash
from selfplay.data.loading import is_held_out
from selfplay.data.sources import Sources
from selfplay.errors import DataError
from selfplay.loop.inputs import data_hash, files_hash, split_weight
from selfplay.loop.stages.stage import ASSISTANT, KEPT, SIMULATOR, Job, LoopContext, Say, stage_identity
from selfplay.loop.stopping import TOKENS
from selfplay.recipe import flat, identity
from selfplay.train.config import TrainConfig
from selfplay.train.merge import merge
from selfplay.train.record import RECORD, read_training_record
from selfplay.train.roles import TrainedSide, load_training_recipe
from selfplay.train.run import CHECKPOINTS, is_begun, train, with_base_folder
from simulator.train import SIMULATOR as SIMULATOR_SIDE

ADAPTERS = ".adapters"
"""Ends the name of the folder of a stage's adapters, which its model was merged from."""


def simulator_job(context: LoopContext, iteration: int) -> Job | None:
    """Training of an iteration's UserGPT; None where it is not trained."""
    stage = context.config.simulator
    if stage.train == "never" or (stage.train == "first" and iteration > 1):
        return None
    config = simulator_training(context, iteration)
    base = with_base_folder(config).base
    inputs = {"data": data_hash(config.data.datasets)}
    if base is not None and Path(base).is_dir():
        inputs["base"] = content_hash(Path(base))
    made = stage_identity(identity(config), ("base",), **inputs)
    out = Path(config.output_dir)
    return Job(iteration, "simulator", made, out, lambda: train_stage(config, SIMULATOR_SIDE, context.say))


def simulator_training(context: LoopContext, iteration: int) -> TrainConfig:
    """The training recipe of an iteration's UserGPT."""
    stage, out = context.config.simulator, str(context.at(iteration, SIMULATOR))
    seed = {"optim.seed": context.config.seed + iteration - 1}
    return load_training_recipe(SIMULATOR_SIDE, stage.recipe, {}, {**seed, **flat(stage.settings), "output_dir": out})


def assistant_job(context: LoopContext, iteration: int) -> Job:
    """Training of an iteration's assistant."""
    stage, kept = context.config.assistant, context.at(iteration, KEPT)
    config = assistant_training(context, iteration)
    settings = {**identity(config), "human": list(stage.human), "human_share": stage.human_share}
    inputs = {
        "base": content_hash(Path(str(config.base))),
        "kept": files_hash([str(kept)]),
        "human": data_hash(stage.human),
    }

    def work() -> dict[str, Any]:
        return train_assistant_stage(with_mixture(context, config, kept), kept, context.say)

    made = stage_identity(settings, ("base",), **inputs)
    return Job(iteration, "assistant", made, Path(config.output_dir), work)


def assistant_training(context: LoopContext, iteration: int) -> TrainConfig:
    """The training recipe of an iteration's assistant, before it has its data."""
    stage = context.config.assistant
    base = context.assistant(iteration - 1 if stage.init_from == "previous" else 0)
    given = {"base": str(base), "output_dir": str(context.at(iteration, ASSISTANT))}
    return load_training_recipe(ASSISTANT_SIDE, stage.recipe, {}, {**flat(stage.settings), **given})


def with_mixture(context: LoopContext, config: TrainConfig, kept: Path, often: float = 1) -> TrainConfig:
    """The recipe with generated conversations `often`, and human ones as often as gives them their share.

    Raises:
        DataError: there are none of either.
    """
    stage, held_out = context.config.assistant, config.data.held_out
    people = Sources([split_weight(name)[0] for name in stage.human])
    human = sum(not is_held_out(conversation, held_out) for conversation in people)
    generated = sum(1 for _ in Sources([str(kept)])) * (1 - held_out) * often
    if not generated or not human:
        what = str(kept) if human else ", ".join(stage.human)
        raise DataError(f"{what}: no conversation to learn from; loosen the curation, or give more")
    weight = stage.human_share / (1 - stage.human_share) * generated / human
    names = (split_weight(name) for name in stage.human)
    mixture = (*(f"{plain}={own * weight:.6g}" for plain, own in names), f"{kept}={often:g}")
    return config.model_copy(update={"data": config.data.model_copy(update={"datasets": mixture})})


def train_stage(config: TrainConfig, side: TrainedSide, say: Say) -> dict[str, Any]:
    """Train, or resume; a model that is there already was finished just before a kill. Adapters are merged."""
    out = Path(config.output_dir)
    folder = out if config.lora is None else out.with_name(out.name + ADAPTERS)
    if not (out / "config.json").exists():
        if not (folder / RECORD).exists():
            train(config.model_copy(update={"output_dir": str(folder)}), side, resume=is_begun(folder), say=say)
        if folder != out:
            for left in out.glob(".merging*"):  # a kill in the middle of merging leaves it behind
                shutil.rmtree(left)
            merge(folder, out)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # a kill may have left them beside a finished model
    record = read_training_record(out)
    epochs = record["log"][-1].get("epoch", 1.0) if record["log"] else 1.0
    metrics = {"trained_on": record["conversations"], "steps": record["steps"], "eval_loss": record["eval_loss"]}
    return {**metrics, TOKENS: round(record["supervised_tokens"] * epochs)}


def train_assistant_stage(config: TrainConfig, kept: Path, say: Say) -> dict[str, Any]:
    """Train the assistant, and count whose conversations it learned from."""
    metrics = train_stage(config, ASSISTANT_SIDE, say)
    generated = sum(not is_held_out(conversation, config.data.held_out) for conversation in Sources([str(kept)]))
    return {**metrics, "human_share": round(1 - generated / metrics["trained_on"], 6)}
