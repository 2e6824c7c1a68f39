"""Estimate of a training run without weights (dry run): parameters, optimiser steps, and memory of one device.

Memory, in bytes of P parameters, T of them trained, N processes (ZeRO, arXiv:1910.02054, table 1):

    weights      4 P; in bfloat16 2 P where DeepSpeed keeps the float32 copy, or where they are frozen
    gradients    as wide as the weights they belong to
    optimiser    8 T (two float32 moments); 12 T with a float32 copy of bfloat16 weights
    split        optimiser by N from stage 1, gradients from 2, weights from 3; offload moves them to the host
    activations  what one batch keeps for the backward pass; see `_activations`
    logits       of supervised positions, at most `selfplay.train.methods.loss.CHUNK` at once, with their
                 log-probabilities and the gradients of both

Trap: on a CPU the host and the device share one memory, so offload only adds to it; and its heap has holes (`HEAP`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfplay.train.batches import plan_batches
from selfplay.train.config import TrainConfig
from selfplay.train.launch.deepspeed_config import BUCKET, LIVE
from selfplay.train.launch.environment import check_environment
from selfplay.train.methods.loss import CHUNK
from selfplay.train.model import weights_dtype
from selfplay.train.prepare import TrainInputs
from selfplay.train.roles import TrainedSide
from selfplay.train.run import CHECKPOINTS, with_base_folder

HEAP = 0.3
"""Unused memory in a CPU's fragmented heap, as a share of the blocks that are allocated for each batch; measured by
`bench/speed/memory.py`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of one process in bytes, without libraries. `host` is the part in the host's memory."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    buffers: int
    host: int = 0

    @property
    def total(self) -> int:
        """All bytes on the device."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.logits + self.buffers


@dataclass(frozen=True, slots=True)
class TrainEstimate:
    """The figures of a planned run."""

    parameters: int
    trained: int
    tokens: int
    supervised: int
    steps: int
    batches_per_step: int
    """On each device."""
    memory: Memory


def estimate_training(inputs: TrainInputs) -> TrainEstimate:
    """Estimate the figures of a run without loading weights."""
    config = inputs.config
    parameters, trained = inputs.parameters, inputs.trained
    lengths = [len(row) for row in inputs.train.input_ids]
    batches, steps = plan_batches(config, lengths)
    accumulate = batches.accumulate * config.optim.gradient_accumulation_steps
    tokens = min(config.optim.max_tokens_per_batch, sum(lengths))
    supervised = round(tokens * inputs.train.supervised / inputs.train.tokens)
    memory = estimate_memory(config, inputs.shape, parameters, trained, tokens, supervised)
    return TrainEstimate(parameters, trained, inputs.train.tokens, inputs.train.supervised, steps, accumulate, memory)


def estimate_memory(
    config: TrainConfig, shape: Any, parameters: int, trained: int, tokens: int, supervised: int
) -> Memory:
    """Estimate the memory of one process.

    Args:
        shape: the architecture's configuration.
        parameters: number of all parameters.
        trained: number of trained parameters.
        tokens: tokens of a batch.
        supervised: those of them that carry loss.
    """
    layout, split = config.layout, config.processes
    wide = 2 if weights_dtype(config) == torch.bfloat16 else 4
    mixed = wide == 2 and layout.zero > 0
    frozen = parameters - trained
    stored = frozen * (0.56 if config.lora is not None and config.lora.load_in_4bit else wide) + trained * wide
    weights = stored / (split if layout.zero == 3 else 1)
    gradients = trained * wide / (split if layout.zero >= 2 else 1)
    if layout.zero:  # DeepSpeed steps on float32 copies of its share
        gradients += trained * (4 if mixed or layout.zero < 3 else 0) / split
    optimiser = trained * (12 if mixed else 8 if not layout.zero else 12) / (split if layout.zero else 1)
    buffers = float(min(BUCKET, trained) * wide if layout.zero else (trained * 4 if split > 1 else 0))
    if layout.zero == 3:  # gathered for the layers at work
        buffers += min(LIVE, parameters) * wide
    host = 0.0
    if layout.offload:
        host = optimiser + trained * (wide + 4) / split  # with the copies in transfer
        if layout.zero == 3:
            host, weights = host + weights, 2 * stored / int(shape.num_hidden_layers)
        optimiser = 0.0
        if not torch.cuda.is_available():
            buffers, host = buffers + host, 0.0
    logits = (12 if config.optim.precision == "float32" else 14) * min(supervised * int(shape.vocab_size), CHUNK)
    activations = _activations(config, shape, tokens)
    heap = 0.0 if torch.cuda.is_available() else HEAP * (activations + logits)
    parts = (weights, gradients, optimiser, activations, logits, buffers + heap, host)
    return Memory(*map(int, parts))


def _activations(config: TrainConfig, shape: Any, tokens: int) -> int:
    """Bytes that the layers of a Llama-like model keep of a batch for the backward pass.

    A layer keeps, per token: of both norms the input, the normalised input and the output (under autocast one output
    for each linear layer that casts it); queries, keys, values and attention's result twice; of the gated MLP the gate,
    its activation, the other half and their product. Norms compute in float32. With gradient checkpointing every
    layer keeps only its input, and one layer at a time keeps all of it.
    """
    hidden, inner, layers = int(shape.hidden_size), int(shape.intermediate_size), int(shape.num_hidden_layers)
    heads = int(shape.num_attention_heads)
    size = int(getattr(shape, "head_dim", None) or hidden // heads)
    keys = int(getattr(shape, "num_key_value_heads", None) or heads)
    if config.optim.precision == "float32":
        computed, residual, norms = 4, 4, 12 + 12
    elif weights_dtype(config) == torch.bfloat16:
        computed, residual, norms = 2, 2, 8 + 8
    else:  # autocast over float32 weights
        computed, residual, norms = 2, 4, (8 + 3 * 2) + (8 + 2 * 2)
    layer = norms * hidden + (3 * heads + 2 * keys) * size * computed + 4 * inner * computed
    if config.compute.gradient_checkpointing:
        return tokens * (layers * hidden * residual + layer)
    return tokens * layers * layer


@dataclass(frozen=True, slots=True)
class TrainDryRun:
    """The result of a dry run. `line` is empty where no launcher is needed; `deepspeed` is None without DeepSpeed."""

    config: TrainConfig
    estimate: TrainEstimate
    line: list[str]
    deepspeed: dict[str, Any] | None


def dry_run(config: TrainConfig, side: TrainedSide, say: Callable[[str], None] = print) -> TrainDryRun:
    """Estimate a training run; this loads the data and no weights.

    Raises:
        SelfplayError: see `train`.
    """
    from selfplay.train.launch.deepspeed_config import deepspeed_config
    from selfplay.train.launch.launch import launch_line
    from selfplay.train.plan import estimate_training
    from selfplay.train.prepare import prepare_inputs

    config = with_base_folder(config)
    check_environment(config)
    figures = estimate_training(prepare_inputs(config, side, say))
    line = launch_line(config, Path(config.output_dir) / CHECKPOINTS) if config.launched else []
    return TrainDryRun(config, figures, line, deepspeed_config(config, figures.batches_per_step))
