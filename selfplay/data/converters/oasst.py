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

_MACHINE = "a prompter turn was written by a model (synthetic: true)"
_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The best path of one tree."""
    path: list[Mapping[str, Any]] = []
    node: Mapping[str, Any] | None = object_field(row, "prompt")
    while node is not None:
        path.append(node)
        node = min(_replies(node), key=_rank, default=None)
    if _has_machine_prompt(path):
        raise BadRow(_MACHINE)
    yield conversation_from_pairs(text_field(row, "message_tree_id"), _pairs(path))


def convert_paths(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Every path that people wrote; `meta.paths_left_out` counts the others. Refused when there is none."""
    tree = text_field(row, "message_tree_id")
    paths = list(_paths(object_field(row, "prompt")))
    by_people = [(number, path) for number, path in enumerate(paths) if not _has_machine_prompt(path)]
    if not by_people:
        raise BadRow(_MACHINE)
    left_out = len(paths) - len(by_people)
    meta = {"group": tree, "paths_left_out": left_out} if left_out else {"group": tree}
    for number, path in by_people:
        yield conversation_from_pairs(f"{tree}/{number}", _pairs(path), meta=meta)


def _paths(root: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """From the root to each leaf, in the order of the file; a stack, because trees may be deep."""
    stack = [[root]]
    while stack:
        path = stack.pop()
        replies = _replies(path[-1])
        if not replies:
            yield path
        stack += [[*path, reply] for reply in reversed(replies)]


def _has_machine_prompt(path: list[Mapping[str, Any]]) -> bool:
    return any(node.get("role") == "prompter" and node.get("synthetic") for node in path)


def _pairs(path: list[Mapping[str, Any]]) -> Pairs:
    return pairs_of(path, "role", "text", _ROLES)


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list_field(node, "replies") if node.get("replies") else []


def _rank(message: Mapping[str, Any]) -> float:
    rank = message.get("rank")
    return rank if isinstance(rank, int | float) and rank == rank else float("inf")
