"""Export of runs to training files: JSON lines or Parquet, as messages or as ShareGPT rows.

messages   {id, messages: [{role, content}], ended, meta}
sharegpt   {id, conversations: [{from: system|human|gpt, value}], complete}

Failed conversations are left out and counted; an unanswered last user turn is never written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from selfplay.chat.conversation import Conversation
from selfplay.errors import StoreError
from selfplay.files import write_rows
from selfplay.store.store import open_run

ExportFormat = Literal["messages", "sharegpt"]
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(slots=True)
class ExportResult:
    """Rows written and conversations left out, by reason."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def export_run(folder: str | Path, format: ExportFormat, out: str | Path) -> ExportResult:
    """Write a run's finished conversations as training data; see `export`.

    Raises:
        StoreError, ConfigError: no such run, or the file cannot be written.
    """
    with open_run(folder) as run:
        return export(run.conversations(), format, Path(out))


def export(conversations: Iterable[Conversation], format: ExportFormat, out: Path) -> ExportResult:
    """Write finished conversations to `.jsonl` or `.parquet`.

    Raises:
        ConfigError: another ending of the file name.
        StoreError: the file cannot be written.
    """
    exported = ExportResult()
    try:
        write_rows(_rows(conversations, format, exported), out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror})") from error
    return exported


def is_failed(ended: str | None) -> bool:
    """Whether a reason of ending is a failure, with its cause behind `failed:`."""
    return ended is not None and ended.startswith("failed:")


def answered(conversation: Conversation) -> Conversation:
    """The conversation without an unanswered last user turn."""
    turns = conversation.turns
    return replace(conversation, turns=turns[:-1]) if turns and turns[-1].role == "user" else conversation


def _rows(
    conversations: Iterable[Conversation], format: ExportFormat, exported: ExportResult
) -> Iterator[dict[str, Any]]:
    for conversation in map(answered, conversations):
        if conversation.ended is None or is_failed(conversation.ended):
            exported.left_out[conversation.ended or "unfinished"] += 1
        elif conversation.rounds == 0:
            exported.left_out["no answered round"] += 1
        else:
            exported.rows += 1
            yield _messages_row(conversation) if format == "messages" else _sharegpt_row(conversation)


def _messages_row(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "messages": conversation.messages(),
        "ended": conversation.ended,
        "meta": {"seed": conversation.meta["seed"], "rounds": conversation.rounds},
    }


def _sharegpt_row(conversation: Conversation) -> dict[str, Any]:
    turns = [{"from": _SHAREGPT[turn.role], "value": turn.content} for turn in conversation.turns]
    return {"id": conversation.id, "conversations": turns, "complete": conversation.complete}
