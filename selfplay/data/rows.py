"""Conversations as rows of the `messages` format, which `selfplay.data.converters.messages` reads back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

from selfplay.chat.conversation import Conversation

_TOP = ("group", "dataset", "half")


def row_of(conversation: Conversation) -> dict[str, Any]:
    """{id, messages, complete, context?, group?, dataset?, half?, meta?}; what is empty is left out."""
    meta = conversation.meta
    row: dict[str, Any] = {
        "id": conversation.id,
        "messages": conversation.messages(),
        "complete": conversation.complete,
        "context": conversation.context,
    }
    row |= {key: str(meta[key]) for key in _TOP if key in meta}
    row["meta"] = {key: value for key, value in meta.items() if key not in _TOP}
    return {key: value for key, value in row.items() if value not in (0, {}) or value is False}


def parquet_schema() -> pa.Schema:
    """The columns of such rows in Parquet; `meta` is JSON in a string, since its keys differ from row to row."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = [(name, pa.string()) for name in (*_TOP, "meta")]
    return pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(message)),
            ("complete", pa.bool_()),
            ("context", pa.int64()),
            *texts,
        ]
    )
