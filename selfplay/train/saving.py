"""Saving of the trained model: a folder that Transformers, vLLM and PEFT load without changes.

The folder holds safetensors (bfloat16) or adapters; the tokenizer with the role's chat template; a generation config
that stops at the role's end tokens; `training.json` (recipe, data, lineage, losses), `deepspeed.json` where DeepSpeed
was used, `loss.png` and README.md.

Trap: the order of the files matters. The configuration is moved last, because a folder with a configuration counts as a
finished model.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfplay.chat.models import content_hash
from selfplay.chat.rendering import ChatRenderer
from selfplay.train.config import TrainConfig
from selfplay.train.launch.deepspeed_config import deepspeed_config
from selfplay.train.model_card import model_card
from selfplay.train.prepare import PreparedTraining
from selfplay.train.record import RECORD, read_training_record


def save_model(prepared: PreparedTraining, trainer: Any, eval_loss: float, folder: Path) -> None:
    """Write the model folder. Every process has to call this; only the first one writes.

    The files are written beside the checkpoints and then moved, so that a crash while writing leaves
    nothing in the output folder.
    """
    import torch

    config, tokenizer = prepared.config, prepared.tokenizer
    wrapped = trainer.model_wrapped if trainer.is_deepspeed_enabled else trainer.model
    # Before the return below: ZeRO-3 gathers the weights from all processes.
    weights = trainer.accelerator.get_state_dict(wrapped)
    if not trainer.accelerator.is_main_process:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in weights.items()}
    written = folder / "model"
    written.mkdir(exist_ok=True)
    model.config.use_cache = True  # training switches it off
    model.generation_config = _stopping_at(ChatRenderer(tokenizer), prepared, tokenizer)
    if config.lora is None:
        _save_whole(model, weights, written)
    else:
        model.save_pretrained(written, state_dict=weights, save_embedding_layers=False)
        model.generation_config.save_pretrained(written)
    tokenizer.save_pretrained(written)
    _write_records(prepared, trainer, eval_loss, written)
    move_in(written, Path(config.output_dir))


def move_in(written: Path, out: Path) -> None:
    """Move a model's files into its folder, the configuration last: a folder with a configuration counts as whole."""
    for file in sorted(written.iterdir(), key=lambda path: path.name in ("config.json", "adapter_config.json")):
        file.replace(out / file.name)


def _save_whole(model: Any, weights: dict[str, Any], out: Path) -> None:
    """Save all weights. An embedding that is also the head is written once, as Transformers expects it."""
    if model.config.tie_word_embeddings:
        weights = {name: tensor for name, tensor in weights.items() if name not in (model._tied_weights_keys or ())}
    model.save_pretrained(out, state_dict=weights)
    # save_pretrained writes the type that the model trained in, so the configuration is corrected and saved again.
    model.config.dtype = "bfloat16"
    model.config.save_pretrained(out)


def _stopping_at(renderer: ChatRenderer, prepared: PreparedTraining, tokenizer: Any) -> Any:
    """The generation config: the end tokens of the role, and its default sampling."""
    from transformers import GenerationConfig

    config = prepared.config
    stops = [renderer.end_of_turn_id]
    if prepared.side.ends_conversations and renderer.end_of_conversation_id is not None:
        stops.append(renderer.end_of_conversation_id)
    drawn = config.generation.temperature > 0
    sampling = {"temperature": config.generation.temperature, "top_p": config.generation.top_p} if drawn else {}
    return GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, do_sample=drawn, **sampling)


def _write_records(prepared: PreparedTraining, trainer: Any, eval_loss: float, out: Path) -> None:
    """Write the training record, the DeepSpeed configuration, the model card and the loss curve."""
    config = prepared.config
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    record = {
        "recipe": config.model_dump(mode="json"),
        "side": asdict(prepared.side),
        "template": prepared.facts["template"],
        "data_fingerprint": prepared.facts["data_fingerprint"],
        "conversations": prepared.facts["conversations"],
        "supervised_tokens": prepared.facts["supervised"],
        "lineage": lineage(config, prepared.facts["revision"]),
        "steps": trainer.state.global_step,
        "eval_loss": eval_loss,
        "log": history,
    }
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    deepspeed = deepspeed_config(config, trainer.args.gradient_accumulation_steps)
    if deepspeed is not None:
        (out / "deepspeed.json").write_text(json.dumps(deepspeed, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(record), encoding="utf-8")
    plot_losses(history, out / "loss.png")


def lineage(config: TrainConfig, revision: str | None) -> list[dict[str, Any]]:
    """List the models that this one was trained from, the nearest first.

    Folders are identified by their content hash, models on the hub by their revision.
    """
    if config.base is None:
        return []
    folder = Path(config.base)
    if not folder.is_dir():
        return [{"model": config.base, "revision": revision}]
    parent: dict[str, Any] = {"model": str(folder), "content_hash": content_hash(folder)}
    if not (folder / RECORD).exists():
        return [parent]
    record = read_training_record(folder)
    parent |= {"role": record["recipe"]["role"], "data_fingerprint": record.get("data_fingerprint")}
    return [parent, *record.get("lineage", [])]


def plot_losses(history: list[dict[str, float]], path: Path) -> None:
    """Plot the training and held-out loss over optimiser steps."""
    import matplotlib

    matplotlib.use("Agg")  # before pyplot is imported: there may be no display
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
