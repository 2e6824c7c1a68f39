"""The printed results of `selfplay train`: dry runs, results, and the tokens that carry loss."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from selfplay.console.terminal import out

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig
    from selfplay.train.inspect import TokenView
    from selfplay.train.plan import TrainDryRun
    from selfplay.train.run import TrainResult


_LEARNED = ("bold black on green3", "bold black on green1")
_GIVEN = ("default", "bright_black")
"""Two shades each, in turn, so that tokens can be told apart."""


def print_plan(plan: TrainDryRun) -> None:
    """Figures, memory, the DeepSpeed configuration and the launch line."""
    config, figures, memory = plan.config, plan.estimate, plan.estimate.memory
    table = Table(Column("plan", no_wrap=True), Column("", justify="right"), Column(""), box=SIMPLE, show_header=False)
    trained = "all trained" if figures.trained == figures.parameters else f"{figures.trained:,} trained"
    table.add_row("parameters", f"{figures.parameters:,}", trained)
    share = figures.supervised / figures.tokens
    table.add_row("tokens an epoch", f"{figures.tokens:,}", f"{figures.supervised:,} supervised ({share:.0%})")
    batch = (
        f"{config.optim.global_batch_size} conversations a step"
        if config.optim.global_batch_size
        else "as many as fill the batches"
    )
    each = f"{figures.batches_per_step} × {config.optim.max_tokens_per_batch:,} tokens on each of {config.processes}"
    table.add_row("steps", f"{figures.steps:,}", f"{batch}; {each}")
    table.add_row("memory of each device", _bytes(memory.total), _layout(config))
    for name in ("weights", "gradients", "optimiser", "activations", "logits", "buffers"):
        table.add_row(f"  {name}", _bytes(getattr(memory, name)), "")
    if memory.host:
        table.add_row("memory of the host", _bytes(memory.host), "for each process")
    out.print(table)
    if plan.deepspeed is not None:
        out.print(f"DeepSpeed configuration\n{json.dumps(plan.deepspeed, indent=2)}", markup=False, highlight=False)
    if plan.line:
        out.print(f"launch line: {shlex.join(plan.line)}", markup=False, highlight=False, soft_wrap=True)
    else:
        out.print("no launcher: it runs in the process of the command", markup=False)


def print_result(result: TrainResult, config: TrainConfig) -> None:
    """Where the model is and how it did."""
    out.print(
        f"{result.steps} steps, held-out loss {result.eval_loss:.4f} nats per token; model: {result.out}",
        markup=False,
        soft_wrap=True,
    )
    if config.lora is not None:
        out.print(
            f"adapters; for serving: selfplay train merge {result.out} --out FOLDER", markup=False, soft_wrap=True
        )


def print_merged(path: Path) -> None:
    """Where the whole model is."""
    out.print(f"model: {path}", markup=False, soft_wrap=True)


def print_tokens(shown: TokenView) -> None:
    """Tokens in colour; where there is none, supervised stretches stand in ⟦ ⟧."""
    text = Text()
    before = False
    for number, (token, learned) in enumerate(shown.tokens):
        if not out.color_system and learned != before:
            text.append("⟦" if learned else "⟧")
        text.append(token, style=(_LEARNED if learned else _GIVEN)[number % 2])
        before = learned
    if not out.color_system and before:
        text.append("⟧")
    out.print(text, soft_wrap=True)
    count, total = sum(on for _, on in shown.tokens), len(shown.tokens)
    out.print(
        f"\n{shown.id}: {total} tokens, {count} supervised ({count / total:.0%})",
        markup=False,
        highlight=False,
    )


def _layout(config: TrainConfig) -> str:
    layout = config.layout
    zero = f"ZeRO-{layout.zero}" if layout.zero else "no ZeRO"
    adapters = f", LoRA rank {config.lora.rank}" if config.lora else ""
    return f"{zero}{', offload' if layout.offload else ''}{adapters}, {config.optim.precision}; libraries left out"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1024:,.0f} KiB"
