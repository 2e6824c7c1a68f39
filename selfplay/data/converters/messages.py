"""Messages: {messages: [{role: system|user|assistant, content}], id?, complete?, ended?}.

`selfplay export` writes these rows.

`complete` says whether the conversation is shown to its end; left out, it is true unless `ended` names another reason
than the user's own wish.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import list_field, text_field
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation."""
    pairs = []
    for message in list_field(row, "messages"):
        role = text_field(message, "role")
        if role not in _ROLES:
            raise BadRow(f"role {role!r}, expected system, user or assistant")
        pairs.append((_ROLES[role], text_field(message, "content")))
    known = row.get("id")
    id = known if isinstance(known, str) else blake2b(json.dumps(pairs).encode(), digest_size=6).hexdigest()
    complete = row.get("complete", row.get("ended") in (None, "user_ended"))
    yield conversation_from_pairs(id, pairs, complete=bool(complete))
