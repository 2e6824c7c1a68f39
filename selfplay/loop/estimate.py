"""`selfplay loop --estimate`: what a loop will take, from a sample of each stage, run for real and thrown away.

generate    a pilot of 32 conversations, scaled; with the models of the first iteration, where UserGPT is trained in the
            loop with what a short training made of it: its size is right, how long it talks is a guess
curate      the share of the pilot that is kept; what it is held against is read once, however long the run
training    short trainings give the time of a step and of all around the steps; the number of steps and the memory are
            those of the whole data, the pilot standing in for the run
bench       measured as it is; no judge is asked, here or in curation
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from assistant.train import ASSISTANT as ASSISTANT_SIDE
from selfplay.generate.estimate import estimate_run
from selfplay.loop.config import LoopConfig
from selfplay.loop.inputs import with_data
from selfplay.loop.plan import LoopPlan
from selfplay.loop.run import release_gpu
from selfplay.loop.stages.curate import curate_stage, curation
from selfplay.loop.stages.generate import self_play
from selfplay.loop.stages.stage import ASSISTANT, KEPT, RUN
from selfplay.loop.stages.training import assistant_training, simulator_training, with_mixture
from selfplay.train.merge import merge
from selfplay.train.roles import TrainedSide
from selfplay.train.run import train
from simulator.train import SIMULATOR as SIMULATOR_SIDE

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
_SHORT, _LONG = 2, 8
"""Steps of the short trainings."""
_STATE = 12
"""Bytes a parameter of a checkpoint: weights and two moments in float32."""
_OFTEN = 999.0
"""How often a mixture may have a conversation."""
_CHECKPOINTS = 2
"""Checkpoints on the disk at once while training."""


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage of a loop: what one of it takes and how many there are.

    `peak`: bytes that lie on the disk only while it runs.
    """

    stage: str
    times: int
    seconds: float
    tokens: float
    disk: float
    peak: float = 0.0
    remark: str = ""


def estimate_loop(config: LoopConfig, out: str | Path, say: Say = print) -> list[StageEstimate]:
    """What the stages of a loop will take, the first assistant's bench included.

    Args:
        out: the loop's folder; samples lie beside it while they are made.

    Raises:
        SelfplayError: models, data or settings that cannot be used, or nothing of the pilot is fit to be learned from.
    """
    beside = Path(out).absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".selfplay-estimate-", dir=beside) as name:
        folder = Path(name)
        config = with_data(config, folder, False, say)
        LoopPlan(config, folder, say).check()
        found, plan = [], LoopPlan(_unjudged(config), folder, say)
        if config.simulator.train != "never":
            trained = folder / "simulator"
            times = config.iterations if config.simulator.train == "every" else 1
            found.append(_training(SIMULATOR_SIDE, simulator_training(plan.context, 1), times, trained, say))
            given = config.simulator.model_copy(update={"train": "never", "model": str(trained)})
            plan = LoopPlan(_unjudged(config).model_copy(update={"simulator": given}), folder, say)
        scale, conversations = _conversations(config, plan, say)
        found += conversations
        learned = min(scale, _OFTEN)
        training = with_mixture(plan.context, assistant_training(plan.context, 1), plan.context.at(1, KEPT), learned)
        found.append(
            _training(ASSISTANT_SIDE, training, config.iterations, plan.context.at(1, ASSISTANT), say, scale / learned)
        )
        began = time.monotonic()
        bench = plan.job(1, "bench")
        assert bench is not None
        bench.work()
        remark = "" if config.bench.judge is None else "judged questions are not in it: `selfplay bench ... --dry-run`"
        took = time.monotonic() - began
        found.append(StageEstimate("bench", config.iterations + 1, took, 0, _size(bench.output), remark=remark))
    return found


def _unjudged(config: LoopConfig) -> LoopConfig:
    """The loop without its judges, who may cost money."""
    bench = config.bench.model_copy(update={"judge": None})
    curate = config.curate.model_copy(update={"settings": {**config.curate.settings, "judge": None}})
    return config.model_copy(update={"bench": bench, "curate": curate})


def _conversations(config: LoopConfig, plan: LoopPlan, say: Say) -> tuple[float, list[StageEstimate]]:
    """What the pilot stands for, as a multiple of it; generating and curating."""
    say("a pilot of the conversations")
    wanted = self_play(plan.context, 1)
    told = estimate_run(wanted, keep=plan.context.at(1, RUN))
    job = plan.job(1, "curate")
    assert job is not None
    began = time.monotonic()
    share = job.work()["kept"] / told.measured
    whole = time.monotonic() - began
    alone = curation(plan.context, 1).model_copy(update={"dedup_against": (), "memorization_reference": ()})
    began = time.monotonic()
    curate_stage(plan.context.at(1, RUN), plan.context.at(1, f"alone-{KEPT}"), alone, lambda line: None)
    own = time.monotonic() - began  # what grows with the run; the rest is reading what it is held against
    scale = told.conversations / told.measured
    tokens = sum(told.sampled_tokens.values())
    times, size = config.iterations, _size(job.output)
    remark = f"{told.conversations:,} conversations, ±{told.spread:.0%}"
    if config.simulator.train != "never":
        remark += "; UserGPT was trained for 8 steps"
    return scale, [
        StageEstimate("generate", times, told.start_seconds + told.seconds, tokens, told.disk_bytes, remark=remark),
        StageEstimate(
            "curate", times, max(0.0, whole - own) + own * scale, 0, size * scale, remark=f"{share:.0%} are kept"
        ),
    ]


def _training(
    side: TrainedSide, config: TrainConfig, times: int, model: Path, say: Say, scale: float = 1
) -> StageEstimate:
    """Time of a step from the difference of two trainings, the rest from one before them, which loads the libraries.

    Args:
        model: where the last one's model is put, adapters merged; later stages are measured with it.
        scale: what the data stands for, as a multiple of it.
    """
    from selfplay.train.plan import dry_run

    say(f"three short trainings of the {side.name}")
    planned = dry_run(config, side, lambda line: None).estimate
    took = {}
    folder = model.with_name(f"{model.name}-samples")
    for label, steps in (("first", _SHORT), ("short", _SHORT), ("long", _LONG)):
        optim = config.optim.model_copy(update={"max_steps": steps})
        began = time.monotonic()
        run = config.model_copy(update={"optim": optim, "output_dir": str(folder / label)})
        train(run, side, say=lambda line: None)
        took[label] = time.monotonic() - began
        release_gpu()
    step = max(0.0, took["long"] - took["short"]) / (_LONG - _SHORT)
    around = max(0.0, took["first"] - _SHORT * step)
    size = 0.0
    if config.lora is None:
        (folder / "long").rename(model)
    else:
        began = time.monotonic()
        merge(folder / "long", model)
        around, size = around + time.monotonic() - began, _size(folder / "long")
    shutil.rmtree(folder)
    bounded = config.optim.max_steps > 0
    planned_steps = planned.steps * (1 if bounded else scale)
    tokens = planned.supervised * (1 if bounded else config.optim.epochs * scale)
    remark = f"{planned_steps:,.0f} steps of {step:.2f} s, {planned.memory.total / 2**30:.1f} GiB of memory a device"
    peak = _CHECKPOINTS * _STATE * planned.trained
    return StageEstimate(side.name, times, around + planned_steps * step, tokens, size + _size(model), peak, remark)


def _size(path: Path) -> float:
    """Bytes of a file or folder."""
    return float(sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()))
