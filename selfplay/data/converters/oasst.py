"""OpenAssistant trees: {message_tree_id, prompt: {text, role: prompter|assistant, rank, synthetic, replies: [...]}}.

The best path is read: at each assistant level the reply people ranked first, at each prompter level the first one.
Source: LAION-AI/Open-Assistant (arXiv:2304.07327).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, object_field, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The best path of one tree; a tree with a machine-written prompter turn on it is refused."""
    pairs = []
    node: Mapping[str, Any] | None = object_field(row, "prompt")
    while node is not None:
        role = text_field(node, "role")
        if role not in _ROLES:
            raise BadRow(f"role {role!r}, expected prompter or assistant")
        if role == "prompter" and node.get("synthetic"):
            raise BadRow("a prompter turn was written by a model (synthetic: true)")
        pairs.append((_ROLES[role], text_field(node, "text")))
        replies = list_field(node, "replies") if node.get("replies") else []
        node = min(replies, key=_rank) if replies else None
    yield conversation_from_pairs(text_field(row, "message_tree_id"), pairs)


def _rank(message: Mapping[str, Any]) -> float:
    rank = message.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")
