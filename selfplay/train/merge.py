"""Adapters put into their base: a folder that serves without PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from selfplay.errors import ConfigError, ModelError
from selfplay.train.model_card import model_card
from selfplay.train.saving import move_in


def merge(adapter: Path, out: Path) -> None:
    """Write the base with the adapters of a folder added to its weights.

    Raises:
        ModelError: the folder holds no adapters, or their base cannot be loaded.
        ConfigError: the output folder already holds a model.
    """
    told = adapter / "adapter_config.json"
    if not told.exists():
        raise ModelError(f"{adapter}: no adapters (adapter_config.json is missing); name a folder trained with --lora")
    if any((out / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{out} already holds a model; choose another --out or remove it first")
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, GenerationConfig

    from selfplay.train.model import load_base

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = load_base(str(json.loads(told.read_text(encoding="utf-8"))["base_model_name_or_path"]), dtype=torch.float32)
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
    told = adapter / "training.json"
    if told.exists():
        shutil.copy(told, out / told.name)
        record = json.loads(told.read_text(encoding="utf-8"))
        (out / "README.md").write_text(model_card(record, merged=True), encoding="utf-8")
    if (adapter / "loss.png").exists():
        shutil.copy(adapter / "loss.png", out / "loss.png")
