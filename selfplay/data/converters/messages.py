"""Lists of turns that name their speaker: {messages: [{role, content}]}.

messages  {messages: [{role: system|user|assistant, content}], id?, complete?, ended?, context?, group?, dataset?,
          half?, meta?}, as `selfplay export` and `selfplay data clean` write it. `complete` says whether the
          conversation is shown to its end; left out, it is true unless `ended` names another reason than the user's
          own wish.
          In tables (No Robots as CSV) `messages` may be the list as text. Calls of tools are left out. Rows with
          `label: false` (KTO) are refused.
wildchat  {conversation: [{role, content}], conversation_hash|conversation_id, hashed_ip?}: WildChat (arXiv:2405.01470)
          and LMSYS-Chat-1M (arXiv:2309.11998). People are told apart by `hashed_ip`.
crosswoz  {messages: [{role: usr|sys, content}], goal, ...}: thu-coai/CrossWOZ (arXiv:2002.11893).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import id_of, list_field, pairs_of, text_field
from selfplay.data.converters.intents import intent_of_goal
from selfplay.errors import BadRow

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "client": "user",
    "counselor": "assistant",
}
_KEPT = ("group", "dataset", "half")


def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation."""
    if isinstance(row.get("messages"), str):
        row = {**row, "messages": _parsed(text_field(row, "messages"))}
    if row.get("label") is False:
        raise BadRow("the reply was judged bad (label: false)")
    pairs = pairs_of(filter(_is_spoken, list_field(row, "messages")), "role", "content", _ROLES)
    complete = row.get("complete", row.get("ended") in (None, "user_ended"))
    meta = _meta(row.get("meta"))
    meta |= {key: str(row[key]) for key in _KEPT if isinstance(row.get(key), str | int)}
    name = id_of(row, "id" if row.get("id") is not None else "prompt_id", pairs)
    context = row.get("context")
    shown = context if isinstance(context, int) and 0 <= context <= len(pairs) else 0
    whole = str(complete).lower() not in ("false", "0", "none")
    found = conversation_from_pairs(name, pairs, complete=whole, context=shown, meta=meta)
    ended = row.get("ended")
    yield replace(found, ended=ended) if isinstance(ended, str) else found


def convert_wildchat(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation, grouped by person where the row says who."""
    pairs = pairs_of(list_field(row, "conversation"), "role", "content", _ROLES)
    key = "conversation_hash" if "conversation_hash" in row else "conversation_id"
    person = row.get("hashed_ip")
    meta = {"group": person} if isinstance(person, str) and person else {}
    yield conversation_from_pairs(id_of(row, key, pairs), pairs, meta=meta)


def convert_crosswoz(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue."""
    pairs = pairs_of(list_field(row, "messages"), "role", "content", {"usr": "user", "sys": "assistant"})
    meta = intent_of_goal({"text": row.get("task description")})
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, meta=meta)


def _is_spoken(turn: Mapping[str, Any]) -> bool:
    """Not a call of a tool or what it gave back."""
    called = turn.get("tool_calls") or turn.get("function_call")
    return turn.get("role") not in ("tool", "function") and not (called and not turn.get("content"))


def _meta(value: Any) -> dict[str, Any]:
    """An object, or one written as JSON, as Parquet files have it. The keys of the row itself are not taken from it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return {key: item for key, item in value.items() if key not in _KEPT} if isinstance(value, Mapping) else {}


def _parsed(text: str) -> Any:
    """The list that a table cell holds, as JSON or as a Python literal; neither runs anything."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadRow("field 'messages' is text that holds no list") from error
