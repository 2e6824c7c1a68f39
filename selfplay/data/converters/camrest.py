"""CamRest676: {dialogue_id?, dial: [{usr: {transcript}, sys: {sent}}]}.

Source: Wen et al., arXiv:1604.04562, in the layout of ConvLab.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, object_field, text_field


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue. Rows without an id are named after their text, so that splits stay stable."""
    pairs: list[tuple[Role, str]] = []
    for exchange in list_field(row, "dial"):
        pairs.append(("user", text_field(object_field(exchange, "usr"), "transcript")))
        pairs.append(("assistant", text_field(object_field(exchange, "sys"), "sent")))
    known = row.get("dialogue_id")
    digest = blake2b("\n".join(text for _, text in pairs).encode(), digest_size=6).hexdigest()
    yield conversation_from_pairs(str(known) if known is not None else digest, pairs)
