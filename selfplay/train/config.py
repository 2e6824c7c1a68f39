"""What a training recipe may say. Reading one loads no model code."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfplay.chat.conversation import TrainedRole


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ScratchModel(_Strict):
    """A new Llama-architecture model with a new byte-level BPE tokenizer."""

    vocab_size: int = Field(6144, ge=300)
    """Tokens, special ones included."""
    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 5
    heads: int = 4
    """Attention heads; hidden_size / heads is the head size."""
    max_positions: int = 1024
    """Longest context in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchModel:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class TrainData(_Strict):
    """Which conversations are trained on."""

    datasets: tuple[str, ...]
    """Catalogue names, paths or hub names, each `name` or `name=weight`: how often an epoch has its conversations."""
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of each dataset kept out of training, by conversation."""
    max_tokens: int = Field(768, ge=16)
    """Longer conversations are cut on the right; a cut one shows no ending."""
    strict: bool = False
    """Stop at the first bad row instead of counting and skipping it."""
    eval_conversations: int = Field(400, ge=1)
    """Held-out conversations the loss is followed on."""


class Optimisation(_Strict):
    """How the weights move."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = -1
    """Stop after this many optimiser steps; -1: epochs decide."""
    batch_tokens: int = Field(6144, ge=64)
    """Tokens of one device's batch, padding included."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step."""
    learning_rate: float = Field(1e-3, gt=0)
    min_lr_ratio: float = Field(0.05, ge=0, le=1)
    """The cosine ends at this share of the learning rate."""
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    beta2: float = Field(0.95, gt=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16 computes under autocast; weights and optimiser stay float32."""
    seed: int = 0


class TrainConfig(_Strict):
    """A training recipe."""

    description: str = ""
    """One line for `selfplay recipes`."""
    role: TrainedRole
    """Whose tokens carry loss: user (UserGPT), assistant, or all (a base model)."""
    template: str = "nano"
    """Chat-template family."""
    base: str | None = None
    """Model folder to start from; nano: the embedded base. Leave out with `scratch`."""
    scratch: ScratchModel | None = None
    """Start from random weights and train a tokenizer."""
    data: TrainData
    optim: Optimisation = Optimisation()
    out: str
    """Folder of the finished model; checkpoints lie in its `checkpoints/` while training runs."""
    log_steps: int = Field(20, ge=1)
    eval_steps: int = Field(200, ge=1)
    save_steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("give exactly one of 'base' (a model folder) and 'scratch' (a new model)")
        return self
