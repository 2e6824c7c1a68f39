r"""hh-rlhf: {chosen, rejected}, each a transcript "\n\nHuman: ...\n\nAssistant: ...".

The chosen side is read. Rows stop where two replies were compared, not where the person stopped: `complete` is false.
Source: anthropics/hh-rlhf (arXiv:2204.05862).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import text_field
from selfplay.errors import BadRow

_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The chosen transcript, cut at its last reply."""
    transcript = text_field(row, "chosen")
    before, *parts = _TURN.split(transcript)
    if before.strip() or not parts:
        raise BadRow("'chosen' does not start with '\\n\\nHuman: '")
    roles: list[Role] = ["user" if name == "Human" else "assistant" for name in parts[::2]]
    # The name covers the human side alone: rows that differ in the replies only fall into the same half of a split.
    # Rows that share a beginning and then part are different conversations and may fall into both.
    prompt = "\n".join(text for role, text in zip(roles, parts[1::2], strict=True) if role == "user")
    digest = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    yield conversation_from_pairs(digest, zip(roles, parts[1::2], strict=True), complete=False)
