"""How well a model predicts what people wrote, and when it would have ended the conversation; one pass gives both.

bits per byte   sum of -log2 p over a role's tokens, end tokens included, over the UTF-8 bytes of the role's text. Does
                not depend on the tokenizer, so models can be compared.
p(end)          probability of <|endconversation|> where a user turn opens, after temperature and nucleus (no end bias).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import Conversation, Role
from selfplay.chat.families import family
from selfplay.chat.rendering import ChatRenderer
from selfplay.serve.backend import Sampling

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class RoleScore:
    """Per conversation: bits and bytes of one role, and p(end) at every user turn after the first.

    `end_probabilities[i]` has one value per decision: K for a whole conversation of K rounds, its last one the end
    people chose.
    """

    bits: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    end_probabilities: list[list[float]] = field(default_factory=list)
    cut: int = 0
    """Conversations longer than the model's context, scored up to it."""


class Scorer:
    """A model folder ready to score conversations, on the CPU in float32."""

    def __init__(self, folder: Path, family_name: str = "nano") -> None:
        """Load the model."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._family = family(family_name)

    def score(self, conversations: Sequence[Conversation], role: Role, sampling: Sampling | None = None) -> RoleScore:
        """Score one role's turns; with `sampling`, also the end decisions (role user only)."""
        renderer = ChatRenderer(self._tokenizer, self._family.template("user" if role == "user" else "assistant"))
        header = renderer.prompt_ids([], "user")[-1]
        score = RoleScore()
        for conversation in conversations:
            ids, mask = renderer.render(conversation)
            limit = int(self._model.config.max_position_embeddings)
            score.cut += len(ids) > limit
            log_probs = self._log_probs(ids[:limit])
            nats, texts = _nats(log_probs, ids[:limit], mask[:limit]), conversation.of(role)
            score.bits.append(nats / math.log(2))
            score.bytes.append(_bytes(texts, ids, mask, limit, renderer))
            if sampling is not None:
                opened = [at for at, id in enumerate(ids[:limit]) if id == header and at > 0]
                score.end_probabilities.append(_end_probabilities(log_probs[opened], renderer, sampling))
        return score

    def _log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities of the next token at each position, shape (T, V)."""
        import torch

        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([ids])).logits[0]
        return torch.log_softmax(logits.float(), dim=-1)


def _nats(log_probs: torch.Tensor, ids: list[int], mask: list[int]) -> float:
    import torch

    targets = torch.tensor(ids[1:])
    picked = log_probs[:-1].gather(1, targets[:, None])[:, 0]
    return float(-(picked * torch.tensor(mask[1:])).sum())


def _bytes(texts: list[str], ids: list[int], mask: list[int], limit: int, renderer: ChatRenderer) -> int:
    """Bytes of the role's text within the context."""
    if len(ids) <= limit:
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    kept = [id for id, on in zip(ids[:limit], mask[:limit], strict=True) if on]
    return len(renderer.decode(kept).encode("utf-8", "surrogatepass"))


def _end_probabilities(log_probs: torch.Tensor, renderer: ChatRenderer, sampling: Sampling) -> list[float]:
    """p(end) under temperature and nucleus sampling (Holtzman et al., arXiv:1904.09751). Shape in (D, V), out D."""
    import torch

    assert renderer.end_of_conversation_id is not None, "the scored simulator can end conversations"
    probs = torch.softmax(log_probs / max(sampling.temperature, 1e-6), dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
    kept = torch.zeros_like(probs).scatter(1, order, ordered.masked_fill(outside, 0.0))
    return [float(p) for p in kept[:, renderer.end_of_conversation_id] / kept.sum(dim=-1)]
