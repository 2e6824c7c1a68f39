"""Merging of adapters into their base (`selfplay train merge`): it writes a model folder that serves without PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from selfplay.errors import ConfigError, ModelError
from selfplay.train.model_card import model_card
from selfplay.train.saving import move_in


def merge(adapter: Path, out: Path) -> None:
    """Add the adapters of a folder to the weights of their base, and write the model folder.

    Raises:
        ModelError: the folder holds no adapters, or their base cannot be loaded.
        ConfigError: the output folder already holds a model.
    """
    adapter_config = adapter / "adapter_config.json"
    if not adapter_config.exists():
        raise ModelError(f"{adapter}: no adapters (adapter_config.json is missing); name a folder trained with --lora")
    if any((out / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{out} already holds a model; choose another --out or remove it first")
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, GenerationConfig

    from selfplay.train.model import load_base

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    base = str(json.loads(adapter_config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    model = load_base(base, dtype=torch.float32)  # added in float32 and rounded to bfloat16 once, after the merge
    # The adapters bring the rows of new tokens, so how the rows start does not matter.
    if len(tokenizer) > int(model.config.vocab_size):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().to(torch.bfloat16)
    merged.config.use_cache = True
    if (adapter / "generation_config.json").exists():
        merged.generation_config = GenerationConfig.from_pretrained(adapter)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".merging") as name:
        merged.save_pretrained(name)
        tokenizer.save_pretrained(name)
        _write_records(adapter, Path(name))
        move_in(Path(name), out)


def _write_records(adapter: Path, out: Path) -> None:
    """Copy the training record and the loss curve, and write a model card of the merged model."""
    source = adapter / "training.json"
    if source.exists():
        shutil.copy(source, out / source.name)
        record = json.loads(source.read_text(encoding="utf-8"))
        (out / "README.md").write_text(model_card(record, merged=True), encoding="utf-8")
    if (adapter / "loss.png").exists():
        shutil.copy(adapter / "loss.png", out / "loss.png")
