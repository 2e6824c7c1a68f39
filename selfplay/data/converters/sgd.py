"""Schema-Guided Dialogue: {dialogue_id, services, turns: [{speaker: USER|SYSTEM, utterance}]}.

Source: google-research-datasets/dstc8-schema-guided-dialogue (arXiv:1909.05855).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {"USER": "user", "SYSTEM": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue; `meta.services` keeps the services it is about."""
    pairs = []
    for turn in list_field(row, "turns"):
        speaker = text_field(turn, "speaker")
        if speaker not in _ROLES:
            raise BadRow(f"speaker {speaker!r}, expected USER or SYSTEM")
        pairs.append((_ROLES[speaker], text_field(turn, "utterance")))
    services = row.get("services")
    meta = {"services": list(services)} if isinstance(services, list) else {}
    yield conversation_from_pairs(text_field(row, "dialogue_id"), pairs, meta=meta)
