"""Weight averaging of a trained model with the base that it started from (WiSE-FT).

Fine-tuning on one side of narrow conversations makes a model forget words that the base knew. The mean of both models'
weights keeps most of either (Wortsman et al., arXiv:2109.01903). It works only because one started from the other.

Trap: under ZeRO-3 the weights are split over the processes, so every process has to take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import broadcast

from selfplay.train.config import TrainConfig
from selfplay.train.model import load_base


def average_with_base(trainer: Any, config: TrainConfig) -> None:
    """Interpolate every weight of the trainer's model towards the base, by the share that the recipe gives.

    Every process has to call this. Embedding rows of tokens that are new to the base stay as trained.

    Raises:
        ModelError: the base cannot be loaded.
    """
    first, share = trainer.accelerator.is_main_process, config.optim.average_with_base
    base = _weights(str(config.base), trainer) if first and config.lora is None else {}
    for name, weight in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        with _whole(weight), torch.no_grad():
            if first:
                _move(name, weight, base, share)
            if not hasattr(weight, "ds_id"):  # GatheredParameters sends split weights out when its context ends
                broadcast(weight.data)


def _weights(base: str, trainer: Any) -> dict[str, torch.Tensor]:
    """Load the base's weights whole in this process.

    ZeRO-3 has to be switched off in Transformers meanwhile: loading would split the weights over all processes.
    """
    from transformers.integrations import deepspeed as zero

    split = zero.is_deepspeed_zero3_enabled()
    if split:
        zero.unset_hf_deepspeed_config()
    try:
        # float32: the average is computed in float32, also where the trained weights are bfloat16.
        return dict(load_base(base, dtype=torch.float32).named_parameters())
    finally:
        if split:
            zero.set_hf_deepspeed_config(trainer.args.hf_deepspeed_config)


def _move(name: str, weight: torch.Tensor, base: Mapping[str, torch.Tensor], share: float) -> None:
    """Interpolate one weight in place."""
    if name in base:
        shared = weight[: len(base[name])]  # rows beyond the base's are new tokens
        shared.copy_(shared.float().lerp(base[name].to(weight.device), share))
    elif "lora_B" in name:  # an adapter is added to the base: a smaller lora_B is nearer to it
        weight.mul_(1 - share)


def _whole(weight: Any) -> Any:
    """A context in which a weight that ZeRO-3 has split is whole; changes by the first process are kept."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0)
