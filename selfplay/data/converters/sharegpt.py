"""ShareGPT: {id?, conversations: [{from: human|gpt|system, value}], complete?}.

An id of ShareGPT's own that ends in `_N` names the N-th part of a longer talk. A part shows no ending, and a later part
(N > 0, or one that starts with a reply) does not start where the talk did: the replies at its front answer nothing and
are left out, and its first human turn is context, read but not learned as an opening. Parts of one talk share a group.
Calls of functions and their results (Glaive) are left out: the person never saw them.
Source: the ShareGPT90K dump as read by FastChat; hiyouga/LLaMA-Factory for the preference rows
{conversations, chosen, rejected}, of which the chosen reply is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import Pairs, id_of, list_field, pairs_of, same_opening, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_HIDDEN = ("function_call", "observation", "tool")
_PART = re.compile(r"(?<=^[A-Za-z0-9]{7})_(\d{1,6})$")
"""Ids of ShareGPT are seven letters and digits; other sources number whole talks like this."""


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation, or one part of a conversation."""
    pairs = _spoken(row)
    id = id_of(row, "id", pairs)
    part = _PART.search(id)
    later = (bool(pairs) and pairs[0][0] == "assistant") or (part is not None and int(part[1]) > 0)
    while pairs and pairs[0][0] == "assistant":
        pairs = pairs[1:]
    if later and not pairs:
        raise BadRow("replies alone; expected at least one human turn")
    complete = part is None and not later and row.get("complete", True) is True
    meta = {"group": _PART.sub("_0", id)} if part else {}
    yield conversation_from_pairs(id, pairs, complete=complete, context=_first_user(pairs) if later else 0, meta=meta)


def convert_preference(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The conversation with its chosen reply. It stops where replies were compared."""
    chosen = row.get("chosen")
    reply = text_field(chosen, "value") if isinstance(chosen, Mapping) else text_field(row, "chosen")
    pairs: Pairs = [*_spoken(row), ("assistant", reply)]
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False, meta=same_opening(pairs))


def _spoken(row: Mapping[str, Any]) -> Pairs:
    turns = list_field(row, "conversations")
    return pairs_of((turn for turn in turns if turn.get("from") not in _HIDDEN), "from", "value", _ROLES)


def _first_user(pairs: Pairs) -> int:
    """How many turns there are up to the first human one, itself included."""
    return next((number for number, (role, _) in enumerate(pairs, start=1) if role == "user"), 0)
