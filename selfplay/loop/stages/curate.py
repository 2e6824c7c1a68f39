"""The curate stage: which of an iteration's conversations are fit to be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfplay.curate.config import CurateConfig
from selfplay.curate.run import curate
from selfplay.errors import ConfigError
from selfplay.loop.inputs import (
    available_locally,
    conversations_hash,
    data_hash,
    files_hash,
    named_hash,
    question_files,
)
from selfplay.loop.stages.stage import KEPT, RUN, Job, LoopContext, Say, stage_identity
from selfplay.recipe import flat, identity, load_recipe
from selfplay.train.record import trained_on


def curate_job(context: LoopContext, iteration: int) -> Job:
    """The curation of an iteration's run; what earlier iterations kept counts as earlier conversations."""
    out, run = context.at(iteration, KEPT), context.at(iteration, RUN)
    earlier = [str(context.at(before, KEPT)) for before in range(1, iteration)]
    config = curation(context, iteration)
    references = (*config.dedup_against, *config.memorization_reference)
    inputs = {
        "run": conversations_hash(run),
        "earlier": files_hash(earlier),
        "known": files_hash([named_hash(name) or data_hash([name]) for name in references]),
    }
    made = stage_identity(identity(config), **inputs)
    config = config.model_copy(update={"dedup_against": (*config.dedup_against, *earlier)})
    return Job(iteration, "curate", made, out, lambda: curate_stage(run, out, config, context.say))


def curation(context: LoopContext, iteration: int) -> CurateConfig:
    """The settings of an iteration's curation.

    Where the recipe names nothing else, human conversations count as earlier ones, what the simulator learned from is
    looked for in its turns, and judged questions are kept out.

    Raises:
        ConfigError: scores of a file, whose ids would be those of every iteration.
    """
    config = curation_recipe(context)
    if config.scores is not None:
        raise ConfigError("curate.scores: ids are the same in every iteration; name a reward model or a judge")
    record = trained_on(context.simulator(iteration))
    learned = () if record is None else available_locally(record.datasets)
    questions = tuple(map(str, question_files(context.config)))
    given = {
        "dedup_against": config.dedup_against or available_locally(context.config.assistant.human),
        "memorization_reference": config.memorization_reference or learned,
        "decontaminate_against": config.decontaminate_against or questions,
    }
    return config.model_copy(update=given)


def curation_recipe(context: LoopContext) -> CurateConfig:
    """The recipe as it is written."""
    stage = context.config.curate
    return load_recipe(stage.recipe, CurateConfig, {}, flat(stage.settings))


def curate_stage(run: Path, out: Path, config: CurateConfig, say: Say) -> dict[str, Any]:
    """Keep what is fit to be learned from."""
    result = curate([str(run)], out, config, say)
    copied = {} if result.copies is None else {"copied": result.copies.share}
    return {"conversations": result.tally.conversations, "kept": result.kept, **copied}
