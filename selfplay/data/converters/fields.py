"""Typed access to the fields of a raw row, with errors a reader of the file can act on; and what every schema shares.

pairs  (role, text) in the order spoken
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from selfplay.chat.conversation import Role
from selfplay.errors import BadRow

Pairs = list[tuple[Role, str]]


def text_field(row: Mapping[str, Any], key: str) -> str:
    """A string field; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, str):
        raise BadRow(f"field {key!r} is {described(value)}, expected a string")
    return value


def optional_text(row: Mapping[str, Any], key: str) -> str:
    """A string field that may be missing, null or empty; another type is a BadRow."""
    return "" if row.get(key) is None else text_field(row, key)


def list_field(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """A list of objects; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise BadRow(f"field {key!r} is {described(value)}, expected a list of objects")
    return value


def texts_field(row: Mapping[str, Any], key: str) -> list[str]:
    """A list of strings; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"field {key!r} is {described(value)}, expected a list of strings")
    return value


def object_field(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object field; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, Mapping):
        raise BadRow(f"field {key!r} is {described(value)}, expected an object")
    return value


def json_field(row: Mapping[str, Any], key: str) -> Any:
    """A string field that holds JSON."""
    try:
        return json.loads(text_field(row, key))
    except (ValueError, RecursionError) as error:
        raise BadRow(f"field {key!r} holds no JSON") from error


def pairs_of(turns: Iterable[Mapping[str, Any]], role_key: str, text_key: str, roles: Mapping[str, Role]) -> Pairs:
    """Turns that name their speaker. `roles` maps the source's names, in lower case; an unknown one is a BadRow."""
    pairs: Pairs = []
    for turn in turns:
        speaker = text_field(turn, role_key).lower()
        if speaker not in roles:
            raise BadRow(f"{role_key} {speaker[:40]!r}, expected one of {', '.join(roles)}")
        pairs.append((roles[speaker], text_field(turn, text_key)))
    return pairs


def alternating(texts: Iterable[str]) -> Pairs:
    """Turns without names: the user first, then by turns."""
    return [("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def joined(pairs: Pairs) -> Pairs:
    """Neighbouring turns of one speaker as one: people who type or speak in several goes."""
    whole: Pairs = []
    for role, text in pairs:
        if whole and whole[-1][0] == role:
            whole[-1] = (role, f"{whole[-1][1]} {text}")
        else:
            whole.append((role, text))
    return whole


def without_greeting(pairs: Pairs) -> tuple[Pairs, dict[str, str]]:
    """The conversation from the user's first turn on, and what the assistant greeted with, as `meta`.

    A greeting answers nothing, and the person's first turn is an opening with or without it.
    """
    if len(pairs) > 1 and pairs[0][0] == "assistant":
        return pairs[1:], {"greeting": pairs[0][1]}
    return pairs, {}


def same_opening(pairs: Pairs) -> dict[str, str]:
    """A group, as `meta`, of all conversations that open with the same words: several rows were made from one talk."""
    return {"group": digest(next((text.strip() for role, text in pairs if role == "user"), ""))}


def id_of(row: Mapping[str, Any], key: str, pairs: Pairs) -> str:
    """The row's own id, or one made from its text, so that splits stay the same whatever the order of rows."""
    known = row.get(key)
    if isinstance(known, str | int) and not isinstance(known, bool) and known != "":
        return str(known)
    return digest("\n".join(text for _, text in pairs))


def digest(text: str) -> str:
    """A short name for a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def described(value: Any) -> str:
    """What a field holds, for messages."""
    return "missing" if value is None else f"a {type(value).__name__}"
