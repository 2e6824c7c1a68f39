"""Taskmaster 1, 2 and 4: {conversation_id, utterances: [{speaker: user|assistant, text}]}, any letter case.

Workers sometimes split one turn over several utterances; those are joined with a space.
Source: google-research-datasets/Taskmaster (arXiv:1909.05358).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue."""
    pairs: list[tuple[Role, str]] = []
    for utterance in list_field(row, "utterances"):
        speaker = text_field(utterance, "speaker").lower()
        if speaker not in _ROLES:
            raise BadRow(f"speaker {speaker!r}, expected user or assistant")
        role, text = _ROLES[speaker], text_field(utterance, "text")
        if pairs and pairs[-1][0] == role:
            pairs[-1] = (role, f"{pairs[-1][1]} {text}")
        else:
            pairs.append((role, text))
    yield conversation_from_pairs(text_field(row, "conversation_id"), pairs)
