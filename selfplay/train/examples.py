"""Conversations to training examples and examples to batches.

Every conversation starts at position 0 of its own row, so nothing can leak between neighbours; batches hold rows of
nearly equal length, so padding stays at a few per cent without packing.

Shapes  input_ids, labels: (B, T) int64, padded on the right; labels are -100 where nothing is learned.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from selfplay.chat.conversation import Conversation
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import EmptyLossMask

if TYPE_CHECKING:
    import torch

IGNORED = -100
_STEP = 8
"""Row lengths are rounded up to this many tokens before they are compared."""


@dataclass(slots=True)
class Examples:
    """Token rows ready for training, and counts of what they hold."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    cut: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(map(len, self.input_ids))

    @property
    def supervised(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORED for row in self.labels for label in row)


def build_examples(conversations: Sequence[Conversation], renderer: ChatRenderer, max_tokens: int) -> Examples:
    """Render, cut on the right at `max_tokens`, and turn masks into labels.

    Raises:
        EmptyLossMask: the template marks nothing, or no conversation keeps a trained token.
    """
    if not renderer.has_generation_tags:
        raise EmptyLossMask(
            "the chat template has no {% generation %} tags, so no token would be trained; "
            "use a template family of this package or add the tags around the trained role's turns"
        )
    examples = Examples()
    for conversation in conversations:
        ids, mask = renderer.render(conversation)
        examples.cut += len(ids) > max_tokens
        ids, mask = ids[:max_tokens], mask[:max_tokens]
        if not any(mask[1:]):
            examples.skipped["no trained token within max_tokens"] += 1
            continue
        examples.input_ids.append(ids)
        examples.labels.append([id if on else IGNORED for id, on in zip(ids, mask, strict=True)])
    if not examples.input_ids:
        raise EmptyLossMask(
            f"none of {len(conversations)} conversations keeps a trained token within {max_tokens} tokens; "
            "raise data.max_tokens or check that the data has turns of the trained role"
        )
    return examples


class LengthBatches:
    """Batch sampler: rows of nearly equal length, at most `batch_tokens` tokens a batch, padding included.

    The batches of an epoch depend on (seed, epoch) only, and every epoch has equally many, as resuming needs.
    """

    def __init__(self, lengths: Sequence[int], batch_tokens: int, seed: int) -> None:
        self._widths = [-(-length // _STEP) * _STEP for length in lengths]
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._epoch = 0
        self.batch_size = 1
        self.drop_last = False
        self._count = len(self._compose())

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle; called by the training loop."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._compose()
        random.Random(f"{self._seed}/{self._epoch}/order").shuffle(batches)
        return iter(batches)

    def _compose(self) -> list[list[int]]:
        """Greedy over rows sorted by width; ties are shuffled, so batch shapes stay equal from epoch to epoch."""
        shuffle = random.Random(f"{self._seed}/{self._epoch}/rows")
        rows = sorted(range(len(self._widths)), key=lambda row: (self._widths[row], shuffle.random()))
        batches: list[list[int]] = []
        for row in rows:
            if not batches or (len(batches[-1]) + 1) * self._widths[row] > self._batch_tokens:
                batches.append([])
            batches[-1].append(row)
        return batches


def collate(rows: list[dict[str, list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right. Under causal attention no real token sees padding, so there is no attention mask."""
    import torch

    width = -(-max(len(row["input_ids"]) for row in rows) // _STEP) * _STEP
    input_ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), IGNORED)
    for number, row in enumerate(rows):
        input_ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        labels[number, : len(row["labels"])] = torch.tensor(row["labels"])
    return {"input_ids": input_ids, "labels": labels}
