"""ShareGPT: {id, conversations: [{from: human|gpt|system, value}], complete?}.

An id that ends in `_N` names the N-th part of a longer talk. A part shows no ending, and a later part (N > 0) does not
start where the talk did.
Source: the ShareGPT90K dump as read by FastChat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_PART = re.compile(r"_(\d+)$")


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation, or its first part with `complete` false. Later parts are refused."""
    id = text_field(row, "id")
    part = _PART.search(id)
    if part and int(part[1]) > 0:
        raise BadRow(f"{id} continues a longer conversation; only its first part starts where the person did")
    pairs = []
    for turn in list_field(row, "conversations"):
        speaker = text_field(turn, "from").lower()
        if speaker not in _ROLES:
            raise BadRow(f"from {speaker!r}, expected one of {', '.join(_ROLES)}")
        pairs.append((_ROLES[speaker], text_field(turn, "value")))
    yield conversation_from_pairs(id, pairs, complete=part is None and row.get("complete", True) is True)
