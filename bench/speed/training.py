"""Training speed: this package's batches and loss against TRL's, in one run, as ratios.

    python -m bench.speed.training            # needs $SELFPLAY_DATA; about twelve minutes on 2 cores
    python -m bench.speed.training loss       # held-out loss after the same tokens, three seeds; about 15 minutes
    python -m bench.speed.training gpu        # a Llama of 1.2 billion parameters at 4,096 tokens

Every variant trains the same randomly initialised model on the same conversations with loss on all turns, in a process
of its own (memory settings are per process). Counted are real tokens, padding left out, after 20 warm-up steps.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
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
from selfplay.train.scratch import random_model, train_tokenizer

CONVERSATIONS = 1500
WARM_UP = 20
STEPS = 24
"""Counted optimiser steps."""
BATCH_TOKENS = 6144
LOSS_TOKENS = 200_000
SEEDS = 3
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, by the makers' data sheets."""
LARGE = ScratchModel(vocab_size=6144, hidden_size=2048, intermediate_size=8192, layers=16, heads=16, max_positions=4096)

OURS: dict[str, dict[str, Any]] = {
    "length batches": {},
    "length batches, compiled": {"compile": True},
}
"""Packed rows are for FlashAttention; with a mask, a CPU works through all pairs of a row."""
PADDED = "TRL, padded to 512, batch 8, unsorted"
THEIRS: dict[str, dict[str, Any]] = {
    **{
        f"TRL, packing (bfd) to {length:,}, batch {batch}": {
            "packing": True,
            "max_length": length,
            "per_device_train_batch_size": batch,
        }
        for length in (512, 1024)
        for batch in (1, 2, 6)
    },
    PADDED: {"max_length": 512, "pad_to_multiple_of": 512, "per_device_train_batch_size": 8},
}
GPU: dict[str, dict[str, Any]] = {
    "packed rows": {"packed": True, "max_tokens_per_batch": 16_384},
    "packed rows, compiled": {"packed": True, "max_tokens_per_batch": 16_384, "compile": True},
    "length batches, compiled": {"max_tokens_per_batch": 16_384, "compile": True},
    "TRL, packing (bfd) to 4,096, batch 4": {
        "packing": True,
        "max_length": 4096,
        "per_device_train_batch_size": 4,
        "attention": "flash_attention_2",
    },
    "TRL, packing (bfd) to 4,096, batch 4, SDPA": {
        "packing": True,
        "max_length": 4096,
        "per_device_train_batch_size": 4,
    },
}


def main() -> None:
    """Run each variant in its own process and print the table."""
    rates = {}
    for name in (*OURS, *THEIRS):
        rates[name] = float(_apart("speed", name))
        print(f"{name}: {rates[name]:,.0f} tokens/s", file=sys.stderr)
    best = max((name for name in THEIRS if name != PADDED), key=rates.__getitem__)
    print("| training on a CPU, bfloat16 autocast | tokens/s | against TRL's best packing | against padding |")
    print("| --- | ---: | ---: | ---: |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} | {rate / rates[best]:.2f} | {rate / rates[PADDED]:.2f} |")


def compare_losses() -> None:
    """Held-out loss after the same tokens, mean and 95 % interval over seeds (Student's t)."""
    from scipy import stats

    print("| held-out loss, nats per token | mean | 95 % |\n| --- | ---: | ---: |")
    for name in ("length batches", "TRL, packing (bfd) to 512, batch 2"):
        found = [float(_apart("loss-of", name, str(seed))) for seed in range(SEEDS)]
        mean = statistics.fmean(found)
        wide = stats.t.ppf(0.975, SEEDS - 1) * statistics.stdev(found) / math.sqrt(SEEDS)
        print(f"| {name} | {mean:.4f} | {mean - wide:.4f}–{mean + wide:.4f} |", flush=True)


def measure_gpu() -> None:
    """Tokens a second and the share of the GPU's peak that goes into the model."""
    import torch

    if not torch.cuda.is_available():
        print("not measured: there is no GPU here")
        return
    name = torch.cuda.get_device_name()
    peak = next((rate for card, rate in PEAK.items() if card in name), None)
    print(f"| {name}, {LARGE.layers} layers of {LARGE.hidden_size} | tokens/s | model FLOPs utilisation |")
    print("| --- | ---: | ---: |")
    for variant in GPU:
        try:
            rate, work = (float(part) for part in _apart("gpu-of", variant).split())
        except subprocess.CalledProcessError:
            print(f"| {variant} | could not run | |")
            continue
        print(f"| {variant} | {rate:,.0f} | {f'{rate * work / peak:.1%}' if peak else 'peak unknown'} |", flush=True)


def _apart(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.speed.training", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]


def speed_of(name: str) -> float:
    """Real tokens per second of one variant on this machine's CPU."""
    options = dict({**OURS, **THEIRS}[name])
    trainer, clock, _ = _set_up(options, ScratchModel(), _conversations(), 0, WARM_UP + STEPS + 1)
    trainer.train()
    return float(clock.rate())


def loss_of(name: str, seed: int) -> float:
    """Held-out loss after `LOSS_TOKENS` tokens; whatever trained the model, it is scored in the same way."""
    conversations = _conversations()
    options = dict({**OURS, **THEIRS}[name])
    steps = LOSS_TOKENS // BATCH_TOKENS
    if "max_length" in options:  # as many tokens a step as ours
        options["gradient_accumulation_steps"] = BATCH_TOKENS // 1024
    trainer, _, tokenizer = _set_up(options, ScratchModel(), conversations[:-200], seed, steps)
    trainer.train()
    held_out = build_examples(conversations[-200:], ChatRenderer(tokenizer), 768)
    scorer = _ours(trainer.model, tokenizer, held_out, {}, 1, 0)
    return float(scorer.evaluate()["eval_loss"])


def gpu_of(name: str) -> tuple[float, float]:
    """Tokens a second, and floating-point operations a token (6 a parameter, 12 a layer, position and width)."""
    import random

    from selfplay.chat.conversation import conversation_from_pairs

    chosen = random.Random(0)
    words = [turn.content for item in load(["sample"]).conversations for turn in item.turns]
    conversations = [
        conversation_from_pairs(
            f"c{n}",
            [(role, " ".join(chosen.sample(words, 60))) for _ in range(2) for role in ("user", "assistant")],
        )
        for n in range(800)
    ]
    trainer, clock, _ = _set_up(dict(GPU[name]), LARGE, conversations, 0, WARM_UP + STEPS + 1)
    trainer.train()
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    return float(clock.rate()), 6 * count + 12 * LARGE.layers * LARGE.hidden_size * 4096 / 2


class _Clock:
    """Tokens and seconds after the warm-up."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id
        self._tokens: list[int] = []
        self._times: list[float] = []

    def watch(self, trainer: Any) -> None:
        """Count the real tokens of each batch as it enters the loss."""
        inner = trainer.compute_loss

        def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self._tokens.append(int((inputs["input_ids"] != self._pad_id).sum()))
            self._times.append(time.perf_counter())
            return inner(model, inputs, *args, **kwargs)

        trainer.compute_loss = counted

    def rate(self) -> float:
        """Tokens per second between the first and the last counted step."""
        return sum(self._tokens[WARM_UP:-1]) / (self._times[-1] - self._times[WARM_UP])


def _conversations() -> list[Any]:
    return load(["sgd_train"]).conversations[:CONVERSATIONS]


def _set_up(options: dict[str, Any], shape: ScratchModel, conversations: list[Any], seed: int, steps: int) -> Any:
    import torch
    from transformers import PrinterCallback

    from selfplay.train.launch.malloc import tune_malloc

    texts = (turn.content for conversation in conversations for turn in conversation.turns)
    tokenizer = train_tokenizer(texts, shape, family("nano"))
    tokenizer.chat_template = family("nano").template("all")
    examples = build_examples(conversations, ChatRenderer(tokenizer), shape.max_positions)
    model: Any = random_model(shape, tokenizer, seed)
    model.set_attn_implementation(options.pop("attention", _fastest() if options.get("packed") else "sdpa"))
    theirs = "max_length" in options
    if not theirs and not torch.cuda.is_available():
        tune_malloc()
    trainer = (_theirs if theirs else _ours)(model, tokenizer, examples, options, steps, seed)
    trainer.remove_callback(PrinterCallback)
    clock = _Clock(tokenizer.pad_token_id)
    clock.watch(trainer)
    return trainer, clock, tokenizer


def _fastest() -> str:
    flash = importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def _settings(steps: int, seed: int) -> Any:
    import torch
    from trl import SFTConfig

    return partial(
        SFTConfig,
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        seed=seed,
        bf16=True,
        learning_rate=1e-3,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
        save_strategy="no",
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
    )


def _theirs(model: Any, tokenizer: Any, examples: Examples, options: dict[str, Any], steps: int, seed: int) -> Any:
    from trl import SFTTrainer

    arguments = _settings(steps, seed)(**options)
    return SFTTrainer(model=model, args=arguments, train_dataset=_dataset(examples), processing_class=tokenizer)


def _ours(model: Any, tokenizer: Any, examples: Examples, options: dict[str, Any], steps: int, seed: int) -> Any:
    from selfplay.train.batches import Batches, Composition
    from selfplay.train.methods.trainer import RoleTrainer
    from selfplay.train.model import compile_layers

    if options.get("compile"):
        compile_layers(model)
    packed = bool(options.get("packed"))
    composition = Composition(options.get("batch_tokens", BATCH_TOKENS), packed=packed, seed=seed)
    arguments = _settings(steps, seed)(
        max_length=None, per_device_train_batch_size=1, dataset_kwargs={"skip_prepare_dataset": True}
    )
    arguments.accelerator_config.even_batches = False
    return RoleTrainer(
        batches=Batches([len(row) for row in examples.input_ids], composition, epochs=4),
        evaluation=composition,
        model=model,
        args=arguments,
        train_dataset=_dataset(examples),
        eval_dataset=_dataset(examples),
        processing_class=tokenizer,
    )


def _dataset(examples: Examples) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(examples.columns())


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["loss"]:
            compare_losses()
        case ["gpu"]:
            measure_gpu()
        case ["speed", variant]:
            print(speed_of(variant))
        case ["loss-of", variant, number]:
            print(loss_of(variant, int(number)))
        case ["gpu-of", variant]:
            print(*gpu_of(variant))
        case unknown:
            sys.exit(f"unknown arguments {unknown}; see the head of {__file__}")
