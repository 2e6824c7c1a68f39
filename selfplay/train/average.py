"""A trained model averaged with the model it started from.

Fine-tuning on one side of narrow conversations takes back words the base knew. The mean of both models' weights keeps
most of either (WiSE-FT, Wortsman et al., arXiv:2109.01903); it works because one started from the other.
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
    """Move every weight of the trainer's model the recipe's share of the way back to the base.

    Every process calls this. Rows of tokens that the base has never seen stay as trained.

    Raises:
        ModelError: the base cannot be loaded.
    """
    first, share = trainer.accelerator.is_main_process, config.optim.average_with_base
    base = _weights(str(config.base), trainer) if first and config.lora is None else {}
    for name, weight in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        with _whole(weight), torch.no_grad():
            if first:
                _move(name, weight, base, share)
            if not hasattr(weight, "ds_id"):  # split weights are sent out when the context ends
                broadcast(weight.data)


def _weights(base: str, trainer: Any) -> dict[str, torch.Tensor]:
    """The base's weights, whole in this process: while ZeRO-3 is on, loading would split them over all."""
    from transformers.integrations import deepspeed as zero

    split = zero.is_deepspeed_zero3_enabled()
    if split:
        zero.unset_hf_deepspeed_config()
    try:
        return dict(load_base(base, dtype=torch.float32).named_parameters())
    finally:
        if split:
            zero.set_hf_deepspeed_config(trainer.args.hf_deepspeed_config)


def _move(name: str, weight: torch.Tensor, base: Mapping[str, torch.Tensor], share: float) -> None:
    if name in base:
        there = weight[: len(base[name])]
        there.copy_(there.float().lerp(base[name].to(weight.device), share))
    elif "lora_B" in name:  # adapters are what was added to the base: less of them is nearer to it
        weight.mul_(1 - share)


def _whole(weight: Any) -> Any:
    """The whole of a weight that ZeRO-3 has split; what the first process writes is kept."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0)
