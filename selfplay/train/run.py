"""One training run from recipe to model folder.

What is left in the folder: safetensors (bfloat16), tokenizer with the role's chat template, generation config that
stops at the role's end tokens, `training.json` (recipe, data fingerprint, losses) and `loss.png`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Conversation
from selfplay.chat.families import Family, family
from selfplay.chat.rendering import ChatRenderer
from selfplay.data.loading import Loaded
from selfplay.data.mixing import load_mixture
from selfplay.errors import ConfigError, ModelError
from selfplay.settings import differences
from selfplay.train.config import TrainConfig
from selfplay.train.examples import Examples, build_examples
from selfplay.train.memory import keep_freed_memory

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_OWNER = "run.json"
_NOT_COMPARED = ("out", "description", "log_steps", "save_steps")
"""Settings that may differ on resuming: they do not change the weights."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the model lies and how it did on held-out conversations (nats per supervised token)."""

    out: Path
    steps: int
    eval_loss: float
    supervised_tokens: int


def train(config: TrainConfig, *, resume: bool = False, say: Callable[[str], None] = logger.info) -> TrainResult:
    """Train one role and save the model folder.

    Raises:
        ConfigError: the output folder already holds a model.
        ModelError, DataError, EmptyLossMask: found before any training starts.
    """
    out = Path(config.out)
    if (out / "config.json").exists():
        raise ConfigError(f"{out} already holds a model; choose another --out or remove it first")
    data = config.data
    mixture = load_mixture(data.datasets, held_out=data.held_out, seed=config.optim.seed, strict=data.strict)
    conversations, held_out = mixture.train, mixture.held_out
    _report(mixture.loaded, say)
    identity = {**config.model_dump(mode="json"), "data fingerprint": fingerprint(conversations)}
    checkpoint = _find_checkpoint(out / CHECKPOINTS, identity, resume)
    model, tokenizer = _start(config, family(config.template), conversations)
    renderer = ChatRenderer(tokenizer, tokenizer.chat_template)
    limit = min(config.data.max_tokens, model.config.max_position_embeddings)
    examples = build_examples(conversations, renderer, limit)
    evaluated = build_examples(held_out[:: _stride(held_out, config)], renderer, limit)
    for reason, count in examples.skipped.most_common():
        say(f"skipped {count} conversations: {reason}")
    say(
        f"{len(held_out)} conversations held out, {len(conversations)} to train on: "
        f"{len(examples.input_ids)} conversations, {examples.tokens:,} tokens, {examples.supervised:,} supervised "
        f"({config.role}), {examples.cut} cut at {limit} tokens; model {model.num_parameters() / 1e6:.2f}M parameters"
    )
    trainer = _trainer(config, model, tokenizer, examples, evaluated)
    if trainer.args.use_cpu:
        keep_freed_memory()
    if trainer.accelerator.num_processes > 1:
        raise ConfigError("training runs in one process so far; start it without a launcher")
    _note_owner(out / CHECKPOINTS, identity)
    trainer.train(resume_from_checkpoint=checkpoint)
    loss = float(trainer.evaluate()["eval_loss"])
    _save(config, trainer, tokenizer, renderer, conversations)
    shutil.rmtree(out / CHECKPOINTS)
    return TrainResult(out, int(trainer.state.global_step), loss, examples.supervised)


def _start(config: TrainConfig, family: Family, conversations: list[Conversation]) -> tuple[Any, Any]:
    """Model and tokenizer with the trained role's template, from random weights or from a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selfplay.train.scratch import random_model, train_tokenizer

    if config.scratch is not None:
        texts = (turn.content for conversation in conversations for turn in conversation.turns)
        tokenizer: Any = train_tokenizer(texts, config.scratch, family)
        model: Any = random_model(config.scratch, tokenizer, config.optim.seed)
    else:
        folder = str(config.base)
        if not (Path(folder) / "config.json").exists():
            raise ModelError(f"{folder}: no model folder (config.json is missing); set 'base' to a trained model")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    missing = [token for token in family.special_tokens if token not in tokenizer.get_vocab()]
    if missing:
        raise ModelError(
            f"{config.base}: the tokenizer lacks {', '.join(missing)}, which template {family.name!r} needs; "
            "choose the template family the base was trained with"
        )
    tokenizer.chat_template = family.template(config.role)
    return model, tokenizer


def _trainer(config: TrainConfig, model: Any, tokenizer: Any, examples: Examples, evaluated: Examples) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig

    from selfplay.train.trainer import RoleTrainer, StopOnNan

    optim = config.optim
    arguments = SFTConfig(
        output_dir=str(Path(config.out) / CHECKPOINTS),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=optim.accumulate,
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps,
        learning_rate=optim.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": optim.min_lr_ratio},
        warmup_steps=optim.warmup_steps,
        weight_decay=optim.weight_decay,
        adam_beta2=optim.beta2,
        optim="adamw_torch_fused",
        bf16=optim.precision == "bfloat16",
        seed=optim.seed,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # otherwise a NaN loss is logged as the average before it
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_steps=config.save_steps,
        save_total_limit=2,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        report_to="none",
        disable_tqdm=False,
        average_tokens_across_devices=False,
    )
    return RoleTrainer(
        model=model,
        args=arguments,
        batch_tokens=optim.batch_tokens,
        train_dataset=Dataset.from_dict({"input_ids": examples.input_ids, "labels": examples.labels}),
        eval_dataset=Dataset.from_dict({"input_ids": evaluated.input_ids, "labels": evaluated.labels}),
        processing_class=tokenizer,
        callbacks=[StopOnNan()],
    )


def _save(
    config: TrainConfig, trainer: Any, tokenizer: Any, renderer: ChatRenderer, conversations: list[Conversation]
) -> None:
    import torch
    from transformers import GenerationConfig

    out = Path(config.out)
    model = trainer.accelerator.unwrap_model(trainer.model).to(torch.bfloat16)
    stops = [renderer.end_of_turn_id]
    if config.role != "assistant" and renderer.end_of_conversation_id is not None:
        stops.append(renderer.end_of_conversation_id)
    model.generation_config = GenerationConfig(
        eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0, top_p=1.0
    )
    model.config.use_cache = True  # off while training
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    record = {
        "recipe": config.model_dump(mode="json"),
        "data_fingerprint": fingerprint(conversations),
        "conversations": len(conversations),
        "steps": trainer.state.global_step,
        "log": history,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _plot(history, out / "loss.png")


def fingerprint(conversations: list[Conversation]) -> str:
    """A hash of ids and texts in order: the same data gives the same value."""
    digest = blake2b(digest_size=16)
    for conversation in conversations:
        learned = (conversation.id, conversation.complete, conversation.context)
        digest.update("\x1d".join(map(str, learned)).encode())
        for turn in conversation.turns:
            digest.update(f"\x1e{turn.role}\x1f{turn.content}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _plot(history: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, label, style in (("loss", "train", "-"), ("eval_loss", "held out", "o-")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    axes.set(xlabel="optimiser step", ylabel="loss (nats per supervised token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _note_owner(folder: Path, identity: dict[str, Any]) -> None:
    """Write down which settings and data the checkpoints belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _OWNER).write_text(json.dumps(identity), encoding="utf-8")


def _find_checkpoint(folder: Path, identity: dict[str, Any], resume: bool) -> str | None:
    """The newest checkpoint on resuming, None before the first one or when a run starts anew.

    Raises:
        ConfigError: they belong to another recipe or other data (keys listed), or to a run that was not resumed, or
            there is none to resume.
    """
    from transformers.trainer_utils import get_last_checkpoint

    note = folder / _OWNER
    if not resume:
        if note.exists():
            raise ConfigError(f"{folder} holds an unfinished run; go on with --resume, or remove the folder")
        return None
    if not note.exists():
        raise ConfigError(f"{folder} holds no checkpoint; start without --resume")
    changed = differences(json.loads(note.read_text(encoding="utf-8")), identity, _NOT_COMPARED)
    if changed:
        raise ConfigError(f"{folder} belongs to other settings: {'; '.join(changed)}; resume with the same ones")
    found = get_last_checkpoint(str(folder))
    return None if found is None else str(found)


def _stride(held_out: list[Conversation], config: TrainConfig) -> int:
    """Take every n-th held-out conversation, so that each dataset is in the followed loss."""
    return max(1, len(held_out) // config.data.eval_conversations)


def _report(loaded: Loaded, say: Callable[[str], None]) -> None:
    for reason, count in loaded.refused.counts.most_common():
        say(f"skipped {count} rows: {reason} (first: {loaded.refused.examples[reason]})")
