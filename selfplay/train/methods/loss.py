"""The loss, computed inside the model's forward, where every wrapper (DDP, DeepSpeed, PEFT, autocast) expects it.

The head is applied to supervised positions only. A user simulator learns from a quarter of the tokens, and the head of
a vocabulary of 128,000 is larger than a layer: scoring every position would waste both time and memory.

Shapes  hidden (N, D), logits (N, V) for N supervised positions; the loss is a sum in nats.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from selfplay.train.examples import FLASH, IGNORED

CHUNK = 2**28
"""Logits held at once (1 GiB in float32); beyond it they are computed again in the backward pass."""
_SCALES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)
"""Settings of models whose head is more than a matrix."""


def patch_loss_forward(model: Any) -> None:
    """Give a causal language model a forward that returns the summed loss of its `labels`, if there are any.

    Models whose head is more than a matrix (a softcap, a scale) compute all logits their own way.
    """
    plain = model.forward
    scaled = any(getattr(model.config, name, None) not in (None, 1.0) for name in _SCALES)

    def forward(self: Any, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        if labels is None:
            return plain(input_ids=input_ids, **kwargs)
        taken = ("position_ids", *(FLASH if "flash" in str(self.config._attn_implementation) else ()))
        kwargs = {name: kwargs[name] for name in taken if name in kwargs}
        targets, keep = labels[:, 1:], labels[:, 1:] != IGNORED
        if scaled:
            logits = plain(input_ids=input_ids, use_cache=False, **kwargs).logits[:, :-1][keep]
            return CausalLMOutput(loss=_nll(logits, targets[keep]))
        backbone = getattr(self, self.base_model_prefix)
        hidden = backbone(input_ids=input_ids, use_cache=False, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        return CausalLMOutput(loss=_chunked(head, hidden[:, :-1][keep], targets[keep], self.config.vocab_size))

    model.forward = MethodType(forward, model)


def _chunked(head: Any, hidden: torch.Tensor, targets: torch.Tensor, vocabulary: int) -> torch.Tensor:
    rows = max(1, CHUNK // vocabulary)
    if len(targets) <= rows:
        return _scored(head, hidden, targets)
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.stack([_scored(head, *part) for part in parts]).sum()
    split = hasattr(next(head.parameters()), "ds_id")  # ZeRO-3's weights come and go, which only the older way allows
    losses: list[torch.Tensor] = [checkpoint(_scored, head, *part, use_reentrant=split) for part in parts]
    return torch.stack(losses).sum()


def _scored(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return _nll(head(hidden), targets)


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="sum")
