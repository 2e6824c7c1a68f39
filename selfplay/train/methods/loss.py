"""Loss over supervised positions: cross-entropy that is computed inside the model's forward.

The head is applied to supervised positions only. A user simulator learns from a quarter of the tokens, and the head of
a vocabulary of 128,000 is larger than a layer: scoring every position would waste both time and memory.

It does not know which role is trained: the labels decide. It does not average either; the trainer divides the sum.

Trap: the loss has to be computed in the model's forward, because every wrapper (DDP, DeepSpeed, PEFT, autocast) hooks
into that call.

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
"""Maximum number of logits at once (1 GiB in float32); beyond it they are recomputed in the backward pass."""
_SCALES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)
"""Configuration names of models whose head is more than a matrix."""


def patch_loss_forward(model: Any) -> None:
    """Replace a causal language model's forward by one that returns the summed loss where there are `labels`.

    Models whose head is more than a matrix (a softcap, a scale) compute all logits with their original forward.
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
    """The summed loss, computed in chunks of at most `CHUNK` logits."""
    rows = max(1, CHUNK // vocabulary)
    if len(targets) <= rows:
        return _scored(head, hidden, targets)
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.stack([_scored(head, *part) for part in parts]).sum()
    # ZeRO-3 gathers and frees weights, which only reentrant checkpoints allow.
    split = hasattr(next(head.parameters()), "ds_id")
    losses: list[torch.Tensor] = [checkpoint(_scored, head, *part, use_reentrant=split) for part in parts]
    return torch.stack(losses).sum()


def _scored(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The summed loss of hidden states."""
    return _nll(head(hidden), targets)


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The summed negative log-likelihood in nats. float32: bfloat16 is too coarse for a log-softmax."""
    return F.cross_entropy(logits.float(), targets, reduction="sum")
