"""Training callbacks for the terminal: progress lines, a stop at a loss that is not finite, and out-of-memory advice.

They do not influence training otherwise. Trap: stopping compares the losses of all processes, so every process has to
reach that code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from selfplay.errors import SelfplayError
from selfplay.train.config import TrainConfig


class Watch(TrainerCallback):  # type: ignore[misc]
    """Callback that prints a line at each log step, and stops a run whose loss is NaN or infinite."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """Print with `say`; None prints nothing."""
        self._say = say
        self._since: list[tuple[int, list[str], torch.Tensor]] = []
        self._tokens = 0
        self._began = time.monotonic()
        self._start = 0
        self._logged = self._began

    def saw(self, step: int, ids: list[str], tokens: int, loss: torch.Tensor) -> None:
        """Record a batch and its summed loss.

        The loss stays a tensor until the next log: reading it now would wait for the device at every batch.
        """
        self._since.append((step, ids, loss))
        self._tokens += tokens

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._began = self._logged = time.monotonic()
        self._start = state.global_step

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check the losses of the steps after the last log."""
        self._stop_if_broken(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Check the losses since the last log, then print."""
        figures = logs or {}
        if "loss" in figures:
            if not math.isfinite(figures["loss"]):  # the mean over processes, so all of them enter this branch
                self._stop_if_broken(args, state)
            now = time.monotonic()
            rate, self._logged = self._tokens * args.world_size / max(now - self._logged, 1e-9), now
            self._since, self._tokens = [], 0
            left = (now - self._began) / max(1, state.global_step - self._start) * (state.max_steps - state.global_step)
            self._print(
                state,
                f"loss {figures['loss']:.4f} · {rate:,.0f} tokens/s · learning rate {figures['learning_rate']:.1e} · "
                f"{timedelta(seconds=round(left))} left",
            )
        elif "eval_loss" in figures:
            if not math.isfinite(figures["eval_loss"]):
                self._stop_if_broken(args, state)
                problem = f"held-out loss is {figures['eval_loss']} at step {state.global_step}"
                raise SelfplayError(_broken(args, problem))
            self._print(state, f"held-out loss {figures['eval_loss']:.4f}")
            self._logged = time.monotonic()  # the time of the evaluation does not count into tokens/s

    def _print(self, state: TrainerState, line: str) -> None:
        if self._say is not None and state.is_world_process_zero:
            width = len(str(state.max_steps))
            self._say(f"step {state.global_step:>{width}}/{state.max_steps}  {line}")

    def _stop_if_broken(self, args: TrainingArguments, state: TrainerState) -> None:
        """Stop at the first loss of any process that is not finite; every process has to call this."""
        seen = ((step, ids, float(loss)) for step, ids, loss in self._since)
        own = next((batch for batch in seen if not math.isfinite(batch[2])), None)
        everywhere: list[Any] = [own]
        if torch.distributed.is_initialized():
            everywhere = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everywhere, own)
        broken = min(filter(None, everywhere), default=None, key=lambda batch: batch[0])
        if broken is None:
            return
        step, ids, loss = broken
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        where = f"in the batch of conversations {', '.join(ids[:5])}{more}"
        raise SelfplayError(_broken(args, f"loss is {loss} at step {step} of {state.max_steps}, {where}"))


def _broken(args: TrainingArguments, what: str) -> str:
    """The error message of a run with a loss that is not finite."""
    good = last_good_checkpoint(Path(args.output_dir))
    start = f" and --base {good}" if good and (good / "config.json").exists() else ""
    return (
        f"{what}. Last good checkpoint: {good or 'none yet'}. Lower optim.learning_rate, or look at the conversations "
        f"with `selfplay train inspect SOURCE --id ID`; start anew with another --out{start}"
    )


def last_good_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose weights are all finite, or None."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in checkpoints if _finite(path)), None)


def _finite(checkpoint: Path) -> bool:
    """Whether a checkpoint has weights and all are finite."""
    files = list(checkpoint.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            if not all(bool(tensors.get_tensor(name).isfinite().all()) for name in tensors.keys()):  # noqa: SIM118
                return False
    return bool(files)


@contextmanager
def memory_advice(config: TrainConfig) -> Iterator[None]:
    """Context that turns an out-of-memory error into advice on settings, the best first.

    Raises:
        SelfplayError: memory ran out in the context.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise SelfplayError(f"out of memory; {memory_knobs(config)}") from error
    except RuntimeError as error:  # on a CPU torch raises a plain RuntimeError
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise SelfplayError(f"out of memory; {memory_knobs(config)}") from error


def memory_knobs(config: TrainConfig) -> str:
    """List the settings that reduce memory, the best first, without those that are already in use."""
    layout, optim = config.layout, config.optim
    halved = max(64, optim.max_tokens_per_batch // 2)
    # ZeRO-3 cannot split 4-bit weights.
    highest = 2 if config.lora is not None and config.lora.load_in_4bit else 3
    knobs = [
        (
            optim.max_tokens_per_batch > config.data.max_tokens,
            f"optim.max_tokens_per_batch {halved} (now {optim.max_tokens_per_batch})",
        ),
        (not config.compute.gradient_checkpointing, "compute.gradient_checkpointing true"),
        (layout.zero < highest and config.processes > 1, f"--zero {max(2, layout.zero + 1)} (now {layout.zero})"),
        (not layout.offload, f"--zero {max(2, layout.zero)} --offload"),
        (config.lora is None and config.scratch is None, "--lora"),
        (config.lora is not None and not config.lora.load_in_4bit, "lora.load_in_4bit true"),
        (True, f"data.max_tokens below {config.data.max_tokens}"),
    ]
    helps = [f"{n}. {knob}" for n, knob in enumerate((knob for open_, knob in knobs if open_), 1)]
    return f"what helps, in this order, with another --out: {'; '.join(helps)}"
