"""Runs to training files: JSON lines or Parquet, as messages or as ShareGPT rows.

messages   {id, messages: [{role, content}], ended, meta}
sharegpt   {id, conversations: [{from: system|human|gpt, value}], complete}

Failed conversations are left out and counted; an unanswered last user turn is never written. Files appear whole or not
at all: they are written beside their name and moved there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from selfplay.chat.conversation import Conversation
from selfplay.errors import ConfigError, StoreError

ExportFormat = Literal["messages", "sharegpt"]
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(slots=True)
class Exported:
    """Rows written and conversations left out, by reason."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def export(conversations: Iterable[Conversation], format: ExportFormat, out: Path) -> Exported:
    """Write finished conversations to `.jsonl` or `.parquet`.

    Raises:
        ConfigError: another ending of the file name.
        StoreError: the file cannot be written.
    """
    writers: dict[str, Callable[[Iterator[dict[str, Any]], Path], None]] = {
        ".jsonl": _write_jsonl,
        ".parquet": _write_parquet,
    }
    if out.suffix not in writers:
        raise ConfigError(f"{out}: cannot write {out.suffix or 'this'}; name the file .jsonl or .parquet")
    exported = Exported()
    partial = out.with_name(f"{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writers[out.suffix](_rows(conversations, format, exported), partial)
        partial.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return exported


def answered(conversation: Conversation) -> Conversation:
    """The conversation without an unanswered last user turn."""
    turns = conversation.turns
    return replace(conversation, turns=turns[:-1]) if turns and turns[-1].role == "user" else conversation


def _rows(conversations: Iterable[Conversation], format: ExportFormat, exported: Exported) -> Iterator[dict[str, Any]]:
    for conversation in map(answered, conversations):
        if conversation.ended is None or conversation.ended.startswith("failed:"):
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


def _write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    while batch := [row for _, row in zip(range(1000), rows, strict=False)]:
        table = pa.Table.from_pylist(batch)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table.cast(writer.schema))
    if writer is None:
        pq.write_table(pa.table({"id": pa.array([], pa.string())}), path)
    else:
        writer.close()
