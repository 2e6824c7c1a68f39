"""OpenAssistant trees: {message_tree_id, prompt: {text, role: prompter|assistant, rank, synthetic, replies: [...]}}.

oasst        the best path: at each assistant level the reply people ranked first, at each prompter level the first one
oasst_paths  every path from the prompt to a leaf; the paths of one tree share a group

A path with a prompter turn that a model wrote is refused.
Source: LAION-AI/Open-Assistant (arXiv:2304.07327).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import Pairs, list_field, object_field, pairs_of, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The best path of one tree."""
    path: list[Mapping[str, Any]] = []
    node: Mapping[str, Any] | None = object_field(row, "prompt")
    while node is not None:
        path.append(node)
        node = min(_replies(node), key=_rank, default=None)
    yield conversation_from_pairs(text_field(row, "message_tree_id"), _pairs(path))


def convert_paths(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Every path that people wrote; refused only when there is none."""
    tree = text_field(row, "message_tree_id")
    refused: BadRow | None = None
    found = 0
    for number, path in enumerate(_paths(object_field(row, "prompt"))):
        try:
            pairs = _pairs(path)
        except BadRow as error:
            refused = error
            continue
        found += 1
        yield conversation_from_pairs(f"{tree}/{number}", pairs, meta={"group": tree})
    if not found and refused is not None:
        raise refused


def _paths(root: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """From the root to each leaf, in the order of the file; a stack, because trees may be deep."""
    stack = [[root]]
    while stack:
        path = stack.pop()
        replies = _replies(path[-1])
        if not replies:
            yield path
        stack += [[*path, reply] for reply in reversed(replies)]


def _pairs(path: list[Mapping[str, Any]]) -> Pairs:
    for node in path:
        if node.get("role") == "prompter" and node.get("synthetic"):
            raise BadRow("a prompter turn was written by a model (synthetic: true)")
    return pairs_of(path, "role", "text", _ROLES)


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list_field(node, "replies") if node.get("replies") else []


def _rank(message: Mapping[str, Any]) -> float:
    rank = message.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")
