"""The bench stage: what an iteration is measured on. Iteration 0 has the first assistant alone, and no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfplay.chat.models import content_hash
from selfplay.generate.config import GenerateConfig
from selfplay.loop.evaluate import HELD_OUT, JUDGED, EvalSpec, evaluate
from selfplay.loop.inputs import conversations_hash, data_hash, files_hash, judge_configs, overlapping
from selfplay.loop.ledger import as_written
from selfplay.loop.stages.generate import MODELS, self_play_recipe
from selfplay.loop.stages.stage import BENCH, RUN, Job, LoopContext, stage_identity
from selfplay.loop.stages.training import assistant_training
from selfplay.recipe import identity

_JUDGED = "judged "
"""Begins the settings that decide what is asked of assistants and judges."""


def bench_job(context: LoopContext, iteration: int) -> Job:
    """What every later score is compared with, in iteration 0; then the run and the next assistant too."""
    stage, out, assistant = context.config.bench, context.at(iteration, BENCH), context.assistant(iteration)
    run = context.at(iteration, RUN) if iteration else None
    before = tuple(context.at(earlier, BENCH) / HELD_OUT for earlier in range(iteration))
    inputs = {"assistant": content_hash(assistant), "human": data_hash(stage.human)}
    inputs |= {"run": conversations_hash(run), "before": files_hash(list(map(str, before)))} if run else {}
    settings = {key: value for key, value in identity(stage).items() if not key.startswith("settings.")}
    for judge in judge_configs(context.config):
        settings |= {f"{_JUDGED}{judge.set}.{key}": value for key, value in identity(judge).items()}
    examples = _examples(context, iteration)
    if examples is not None:
        inputs["simulator"] = content_hash(context.simulator(iteration))
        played = {**identity(examples), "conversations": stage.examples}
        settings |= {f"examples.{key}": value for key, value in played.items() if key not in MODELS}
    overlap = overlapping(stage.human, context.config.assistant.human)
    held_out = assistant_training(context, max(1, iteration)).data.held_out if overlap else 0.0
    settings["held out of human"] = held_out
    spec = EvalSpec(iteration, assistant, run, examples, before, overlap, held_out)
    made = stage_identity(settings, **inputs)

    def lasts(older: Mapping[str, Any]) -> tuple[str, ...]:
        return (JUDGED,) if _asked(older) == _asked(as_written(made)) else ()

    return Job(iteration, "bench", made, out, lambda: evaluate(spec, stage, out, context.say), lasts)


def _examples(context: LoopContext, iteration: int) -> GenerateConfig | None:
    """Self-play of this iteration's models from people's openings; None where there is no simulator yet."""
    if not context.config.bench.examples or not (iteration or context.config.simulator.train == "never"):
        return None
    models = {
        "simulator.model": str(context.simulator(iteration)),
        "assistant.model": str(context.assistant(iteration)),
    }
    return self_play_recipe(context, {}, {**models, "seed": context.config.seed})


def _asked(identity: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Which assistant is asked, and how: answers and verdicts stay valid while both are the same."""
    settings = identity.get("settings", {})
    return identity.get("inputs", {}).get("assistant"), {k: v for k, v in settings.items() if k.startswith(_JUDGED)}
