"""`selfplay loop --estimate`: what a loop will take, from a sample of each stage, run for real and thrown away.

generate    a pilot of 32 conversations, scaled; it is played with the models of the first iteration
curate      the share of the pilot that is kept
training    short trainings give the time of a step and of all around the steps; the number of steps and the memory are
            those of the whole data, the pilot standing in for the run
bench       measured as it is; a judge is not asked
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from selfplay.generation import estimate
from selfplay.inputs import with_data
from selfplay.jobs import ASSISTANT, KEPT, RUN, Plan
from selfplay.loop.stages import LoopConfig
from selfplay.training import plan_training, train

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
_SHORT, _LONG = 2, 8
"""Steps of the short trainings."""
_STATE = 12
"""Bytes a parameter of a checkpoint: weights and two moments in float32."""
_CHECKPOINTS = 2
"""Checkpoints on the disk at once while training."""


@dataclass(frozen=True, slots=True)
class Foreseen:
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


def foresee(config: LoopConfig, say: Say = print) -> list[Foreseen]:
    """What the stages of a loop will take, the first assistant's bench included.

    Raises:
        SelfplayError: models, data or settings that cannot be used, or nothing of the pilot is fit to be learned from.
    """
    with TemporaryDirectory(prefix="selfplay-estimate-") as name:
        folder = Path(name)
        config = with_data(config, folder, False, say)
        untrained = config.simulator.model_copy(update={"train": "never"})
        quiet = config.bench.model_copy(update={"judge": None, "settings": {}})
        plan = Plan(config.model_copy(update={"simulator": untrained, "bench": quiet}), folder, say)
        found = [] if config.simulator.train == "never" else [_simulator(config, plan, folder, say)]
        scale, conversations = _conversations(config, plan, say)
        found += [*conversations, _assistant(config, plan, folder, scale, say)]
        began = time.monotonic()
        bench = plan.job(1, "bench")
        assert bench is not None
        bench.work()
        remark = "" if config.bench.judge is None else "judged questions are not in it: `selfplay bench ... --dry-run`"
        took = time.monotonic() - began
        found.append(Foreseen("bench", config.iterations + 1, took, 0, _size(bench.output), remark=remark))
    return found


def _conversations(config: LoopConfig, plan: Plan, say: Say) -> tuple[float, list[Foreseen]]:
    """What the pilot stands for, as a multiple of it; generating and curating."""
    say("a pilot of the conversations")
    wanted = plan.self_play(1)
    told = estimate(wanted, keep=plan.at(1, RUN))
    began = time.monotonic()
    curation = plan.job(1, "curate")
    assert curation is not None
    share = curation.work()["kept"] / told.measured
    scale = told.conversations / told.measured
    tokens = sum(told.sampled_tokens.values())
    times, size = config.iterations, _size(curation.output)
    remark = f"{told.conversations:,} conversations, ±{told.spread:.0%}"
    return scale, [
        Foreseen("generate", times, told.start_seconds + told.seconds, tokens, told.disk_bytes, remark=remark),
        Foreseen("curate", times, (time.monotonic() - began) * scale, 0, size * scale, remark=f"{share:.0%} are kept"),
    ]


def _assistant(config: LoopConfig, plan: Plan, folder: Path, scale: float, say: Say) -> Foreseen:
    """The assistant's training on the whole data, the pilot counted as often as it stands for."""
    training = plan.with_mixture(plan.assistant_training(1), plan.at(1, KEPT), scale)
    found = _training("assistant", training, config.iterations, folder, say)
    (folder / "assistant-long").rename(plan.at(1, ASSISTANT))  # what bench is measured with
    return found


def _simulator(config: LoopConfig, plan: Plan, folder: Path, say: Say) -> Foreseen:
    times = config.iterations if config.simulator.train == "every" else 1
    return _training("simulator", plan.simulator_training(1), times, folder, say)


def _training(name: str, config: TrainConfig, times: int, folder: Path, say: Say) -> Foreseen:
    """Time of a step from the difference of two trainings, the rest from one before them, which loads the libraries."""
    say(f"three short trainings of the {name}")
    planned = plan_training(config, lambda line: None).estimate
    took = {}
    for label, steps in (("first", _SHORT), ("short", _SHORT), ("long", _LONG)):
        optim = config.optim.model_copy(update={"max_steps": steps})
        out = folder / f"{name}-{label}"
        began = time.monotonic()
        train(config.model_copy(update={"optim": optim, "out": str(out)}), say=lambda line: None)
        took[label] = time.monotonic() - began
    step = max(0.0, took["long"] - took["short"]) / (_LONG - _SHORT)
    around = max(0.0, took["first"] - _SHORT * step)
    epochs = 1.0 if config.optim.max_steps > 0 else config.optim.epochs
    peak = _CHECKPOINTS * _STATE * planned.trained
    remark = f"{planned.steps:,} steps of {step:.2f} s, {planned.memory.total / 2**30:.1f} GiB of memory a device"
    size = _size(folder / f"{name}-long")
    return Foreseen(name, times, around + planned.steps * step, planned.supervised * epochs, size, peak, remark)


def _size(path: Path) -> float:
    """Bytes of a file or folder."""
    return float(sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()))
