"""Training examples and their collation: conversations to token rows with labels, and rows to the tensors of a batch.

It does not know which role is trained: the loss mask comes from the renderer.

Shapes  input_ids, labels, position_ids: (B, T) int64; labels are -100 at positions without loss.
        Padded: one row for each conversation, padded on the right; positions are the model's own.
        Packed: one row (B = 1) of concatenated conversations; positions start again with each conversation, which is
        how attention keeps them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import Conversation
from selfplay.chat.families import Family
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import EmptyLossMask
from selfplay.train.batches import ROUND

if TYPE_CHECKING:
    import numpy as np
    import torch

IGNORED = -100
"""Label of positions without loss, the default ignore_index of torch's cross-entropy."""
FLASH = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""Arguments that tell FlashAttention where conversations begin in a packed row; else every layer would compute it."""


@dataclass(slots=True)
class Examples:
    """Token rows ready for training (int32 arrays), the conversations they come from, and counts."""

    ids: list[str] = field(default_factory=list)
    input_ids: list[np.ndarray[Any, Any]] = field(default_factory=list)
    labels: list[np.ndarray[Any, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    supervised: int = 0
    """Number of tokens that carry loss."""

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return sum(map(len, self.input_ids))

    def columns(self) -> dict[str, list[Any]]:
        """The columns of a dataset: id, input_ids and labels."""
        return {"id": self.ids, "input_ids": self.input_ids, "labels": self.labels}


def build_examples(
    conversations: Sequence[Conversation], renderer: ChatRenderer, max_tokens: int, family: Family | None = None
) -> Examples:
    """Render conversations, cut them on the right at `max_tokens`, and turn loss masks into labels.

    Raises:
        EmptyLossMask: the template marks no tokens for training, or no conversation keeps a trained token.
    """
    import numpy as np

    if not renderer.has_generation_tags:
        raise EmptyLossMask(
            "the chat template has no {% generation %} tags, so no token would be trained; "
            "use a template family of this package or add the tags around the trained role's turns"
        )
    examples = Examples()
    for conversation in conversations:
        if family is not None and family.single_turn and not _single(conversation):
            examples.skipped[f"template {family.name} takes one user turn and one answer"] += 1
            continue
        ids, mask = renderer.render(conversation)
        examples.cut += len(ids) > max_tokens
        ids, mask = ids[:max_tokens], mask[:max_tokens]
        # The first token has no prediction, so a mask that covers it alone trains nothing.
        if not any(mask[1:]):
            examples.skipped["no trained token within max_tokens"] += 1
            continue
        row = np.asarray(ids, dtype=np.int32)
        learned = np.asarray(mask, dtype=bool)
        examples.ids.append(conversation.id)
        examples.input_ids.append(row)
        examples.labels.append(np.where(learned, row, IGNORED).astype(np.int32))
        examples.supervised += int(learned.sum())
    if not examples.input_ids:
        raise EmptyLossMask(
            f"none of {len(conversations)} conversations keeps a trained token within {max_tokens} tokens "
            f"({'; '.join(examples.skipped) or 'there are none'}); raise data.max_tokens or check that the data has "
            "turns of the trained role"
        )
    return examples


def _single(conversation: Conversation) -> bool:
    """Whether a conversation is one user turn, with or without an answer, and nothing before it."""
    return len(conversation.turns) <= 2 and conversation.turns[0].role == "user"


def collate(rows: list[dict[str, Any]], pad_id: int, packed: bool = False) -> dict[str, Any]:
    """Collate rows into one batch: the tensors, the conversation `ids`, and `tokens`, the number without padding.

    There is no attention mask: padding is on the right, and under causal attention no real token attends to it.
    """
    batch = _packed(rows) if packed else _padded(rows, pad_id)
    return {**batch, "ids": [row["id"] for row in rows], "tokens": sum(len(row["input_ids"]) for row in rows)}


def _padded(rows: list[dict[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """One row for each conversation, padded on the right."""
    import torch

    width = -(-max(len(row["input_ids"]) for row in rows) // ROUND) * ROUND
    input_ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), IGNORED)
    for number, row in enumerate(rows):
        input_ids[number, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        labels[number, : len(row["labels"])] = torch.as_tensor(row["labels"])
    return {"input_ids": input_ids, "labels": labels}


def _packed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of concatenated conversations."""
    import torch

    columns: dict[str, list[torch.Tensor]] = {"input_ids": [], "labels": [], "position_ids": []}
    for row in rows:
        labels = torch.as_tensor(row["labels"]).long()
        labels[0] = IGNORED  # it would be predicted from the last token of the conversation before
        columns["input_ids"].append(torch.as_tensor(row["input_ids"]).long())
        columns["labels"].append(labels)
        columns["position_ids"].append(torch.arange(len(labels)))
    ends = torch.tensor([0, *(len(part) for part in columns["labels"])]).cumsum(0).int()
    longest = max(map(len, columns["labels"]))
    packed: dict[str, Any] = {name: torch.cat(parts)[None] for name, parts in columns.items()}
    return packed | dict(zip(FLASH, (ends, ends, longest, longest), strict=True))
