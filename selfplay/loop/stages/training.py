"""What the stages of a loop do: train, play, keep. Each goes on with what is there, and returns its figures."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.curate.run import Sources, curate
from selfplay.data.loading import is_held_out
from selfplay.generate.run import Watch, finish
from selfplay.loop.stopping import TOKENS
from selfplay.store.store import open_run
from selfplay.store.summary import summarise
from selfplay.train.inspect import merge_adapters, train

if TYPE_CHECKING:
    from selfplay.curate.config import CurateConfig
    from selfplay.generate.config import GenerateConfig
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
ADAPTERS = ".adapters"
"""Ends the name of the folder where a stage's adapters lie that its model was made with."""
CHECKPOINTS = "checkpoints"


def trained(config: TrainConfig, say: Say) -> dict[str, Any]:
    """Train, or go on; a model that is there already was finished just before a kill. Adapters are merged."""
    out = Path(config.out)
    folder = out if config.lora is None else out.with_name(out.name + ADAPTERS)
    if not (out / "config.json").exists():
        if not (folder / "training.json").exists():
            resume = (folder / CHECKPOINTS / "run.json").exists()
            train(config.model_copy(update={"out": str(folder)}), resume=resume, say=say)
        if folder != out:
            for left in out.glob(".merging*"):  # by a kill in the middle of it
                shutil.rmtree(left)
            merge_adapters(folder, out)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # a kill may have left them beside a finished model
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    epochs = record["log"][-1].get("epoch", 1.0) if record["log"] else 1.0
    told = {"trained_on": record["conversations"], "steps": record["steps"], "eval_loss": record["eval_loss"]}
    return {**told, TOKENS: round(record["supervised_tokens"] * epochs)}


def learned(config: TrainConfig, kept: Path, say: Say) -> dict[str, Any]:
    """Train the assistant, and count whose conversations it learned from."""
    figures = trained(config, say)
    generated = sum(not is_held_out(one, config.data.held_out) for one in Sources([str(kept)]))
    return {**figures, "human_share": round(1 - generated / figures["trained_on"], 6)}


def played(config: GenerateConfig, watch: Watch) -> dict[str, Any]:
    """Hold the conversations that are owed."""
    out = Path(str(config.out))
    finish(config, "generating", watch)
    with open_run(out) as run:
        totals = run.totals()
        summary = summarise(run.conversations(), totals, {})
    sampled = sum(usage.sampled_tokens for usage in totals.by_role.values())
    return {"conversations": summary.conversations, "rounds": summary.rounds.mean, TOKENS: sampled}


def curated(run: Path, out: Path, config: CurateConfig, say: Say) -> dict[str, Any]:
    """Keep what is fit to be learned from."""
    done = curate([str(run)], out, config, say)
    copied = {} if done.copies is None else {"copied": done.copies.share}
    return {"conversations": done.tally.conversations, "kept": done.kept, **copied}


def release_gpu() -> None:
    """Give back what this process holds of a GPU: the next stage's engines ask for nearly all of it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        import gc

        gc.collect()
        torch.cuda.empty_cache()
