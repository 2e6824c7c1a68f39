"""Conversations as rows of the `messages` format, which `selfplay.data.converters.messages` reads back."""

from __future__ import annotations

from typing import Any

from selfplay.chat.conversation import Conversation

_TOP = ("group", "dataset")


def row_of(conversation: Conversation) -> dict[str, Any]:
    """{id, messages, complete, context?, group?, dataset?, meta?}; what is empty is left out."""
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
