"""Datasets to conversations, with nothing dropped in silence.

Bad rows are counted by reason and skipped; `strict` stops at the first one. The held-out share is chosen by the hash of
(dataset, conversation id), so it stays the same whatever else is loaded, and a conversation is never in both halves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from selfplay.chat.conversation import Conversation
from selfplay.data.catalogue import locate
from selfplay.data.formats import Format, format_named, recognise
from selfplay.data.reading import Row, read_rows
from selfplay.errors import BadRow, DataError, InvalidConversation
from selfplay.seeds import unit_interval

Split = Literal["train", "held_out", "all"]


@dataclass(slots=True)
class Loaded:
    """Conversations of one or more datasets and what was left out (reason → rows)."""

    conversations: list[Conversation] = field(default_factory=list)
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """Reason → the first place it occurred, `file:line`."""


def load(
    names: Iterable[str],
    *,
    split: Split = "all",
    held_out: float = 0.05,
    format: str | None = None,
    strict: bool = False,
) -> Loaded:
    """Read datasets by catalogue name or path.

    Args:
        names: `sample`, catalogue names or paths.
        split: which share to keep; `held_out` is the share in (0, 1) kept from training.
        format: overrides the recognised format of paths.
        strict: raise at the first bad row instead of counting it.

    Raises:
        DataError: a dataset is not found, unreadable, or gives no conversation at all.
    """
    loaded = Loaded()
    for name in names:
        path, known = locate(name)
        chosen = format or known
        _load_file(name, path, format_named(chosen) if chosen else None, strict, loaded)
    if not loaded.conversations:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in loaded.skipped.most_common(3))
        raise DataError(f"no usable conversation in {', '.join(names)}: {reasons or 'no rows'}")
    if split != "all":
        train, kept = halves(loaded.conversations, held_out)
        loaded.conversations = kept if split == "held_out" else train
    return loaded


def halves(conversations: list[Conversation], share: float) -> tuple[list[Conversation], list[Conversation]]:
    """Loaded conversations as (training, held-out) halves.

    Raises:
        DataError: a half comes out empty.
    """
    train: list[Conversation] = []
    held_out: list[Conversation] = []
    for conversation in conversations:
        (held_out if is_held_out(conversation, share) else train).append(conversation)
    for name, half in (("training", train), ("held-out", held_out)):
        if not half:
            raise DataError(
                f"none of {len(conversations)} conversations falls into the {name} half with held_out {share}; "
                "change data.held_out or give more data"
            )
    return train, held_out


def is_held_out(conversation: Conversation, share: float) -> bool:
    """Whether a loaded conversation belongs to the held-out share of its dataset."""
    return unit_interval("held-out", str(conversation.meta["dataset"]), conversation.id) < share


def _load_file(name: str, path: Path, format: Format | None, strict: bool, loaded: Loaded) -> None:
    for row in read_rows(path):
        loaded.rows += 1
        try:
            data = row.value()
            format = format or recognise(data)
            for conversation in format.convert(data):
                meta = {**conversation.meta, "dataset": name}
                loaded.conversations.append(replace(conversation, meta=meta))
        except (BadRow, InvalidConversation) as error:
            if strict:
                raise DataError(f"{row.place}: {error}") from error
            _count(row, str(error), loaded)


def _count(row: Row, message: str, loaded: Loaded) -> None:
    """Count under a reason without the row's own names, so that equal faults add up."""
    reason = re.sub(r"^\S+: ", "", message)
    reason = re.sub(r"^\S+ (?=continues)", "", reason)
    reason = re.sub(r"\bturn \d+\b", "a turn", reason)
    reason = re.sub(r" at column \d+", "", reason)
    loaded.skipped[reason] += 1
    loaded.examples.setdefault(reason, row.place)
