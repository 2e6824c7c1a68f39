"""Training speed on a CPU: this package's batches against TRL's, in one run, as ratios.

    python -m bench.speed.training            # needs $SELFPLAY_DATA; about five minutes on 2 cores

Every variant trains the same randomly initialised nano model on the same SGD conversations with loss on all turns, in a
process of its own (memory settings are per process). Counted are real tokens, padding left out, after warm-up steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

from selfplay.chat.families import family
from selfplay.chat.rendering import ChatRenderer
from selfplay.data.loading import load
from selfplay.train.config import ScratchModel
from selfplay.train.examples import Examples, build_examples
from selfplay.train.memory import keep_freed_memory
from selfplay.train.scratch import random_model, train_tokenizer

CONVERSATIONS = 1500
WARM_UP = 8
STEPS = 24
"""Counted optimiser steps."""

VARIANTS: dict[str, dict[str, Any]] = {
    "length batches, freed memory kept": {"ours": True, "keep": True},
    "length batches": {"ours": True, "keep": False},
    "TRL, packing (bfd) to 1,024, batch 1": {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1},
    "TRL, padding, batch 8": {"max_length": 768, "per_device_train_batch_size": 8},
}


def main() -> None:
    """Run each variant in its own process and print the table."""
    rates = {}
    for name in VARIANTS:
        command = [sys.executable, "-m", "bench.speed.training", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rates[name] = float(json.loads(done.stdout.splitlines()[-1]))
    best = max(rate for name, rate in rates.items() if name.startswith("TRL"))
    print("| training on a CPU, bfloat16 autocast | tokens/s | against TRL's best |\n| --- | ---: | ---: |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} | {rate / best:.2f} |")


def measure(name: str) -> float:
    """Real tokens per second of one variant."""
    options: dict[str, Any] = dict(VARIANTS[name])
    shape = ScratchModel()
    conversations = load(["sgd_train"]).conversations[:CONVERSATIONS]
    texts = (turn.content for conversation in conversations for turn in conversation.turns)
    tokenizer = train_tokenizer(texts, shape, family("nano"))
    tokenizer.chat_template = family("nano").template("all")
    examples = build_examples(conversations, ChatRenderer(tokenizer), 768)
    if options.pop("keep", False):
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(folder, random_model(shape, tokenizer, 0), tokenizer, examples, options)
        clock = _Clock()
        _count_tokens(trainer, clock)
        trainer.train()
    return clock.rate()


class _Clock:
    """Tokens and seconds after the warm-up."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._times: list[float] = []

    def tick(self, tokens: int) -> None:
        """A step starts with this many real tokens."""
        self._tokens.append(tokens)
        self._times.append(time.perf_counter())

    def rate(self) -> float:
        """Tokens per second between the first and the last counted step."""
        return sum(self._tokens[WARM_UP:-1]) / (self._times[-1] - self._times[WARM_UP])


def _count_tokens(trainer: Any, clock: _Clock) -> None:
    """Count labelled tokens (all real ones carry loss here) as each batch enters the loss."""
    inner = trainer.compute_loss

    def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        clock.tick(int((inputs["labels"] != -100).sum()))
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = counted


def _trainer(folder: str, model: Any, tokenizer: Any, examples: Examples, options: dict[str, Any]) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from selfplay.train.trainer import RoleTrainer

    ours = options.pop("ours", False)
    common = partial(
        SFTConfig,
        output_dir=folder,
        max_steps=WARM_UP + STEPS + 1,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
        save_strategy="no",
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
    )
    dataset = Dataset.from_dict({"input_ids": examples.input_ids, "labels": examples.labels})
    if ours:
        arguments = common(
            max_length=None, per_device_train_batch_size=1, dataset_kwargs={"skip_prepare_dataset": True}
        )
        return RoleTrainer(
            batch_tokens=6144, model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer
        )
    return SFTTrainer(model=model, args=common(**options), train_dataset=dataset, processing_class=tokenizer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
