"""Intents of users in words, from the annotations of task-oriented datasets. Kept as `meta.intent`.

A user model that was trained with intents (UserLM, arXiv:2510.06552) is given it before it speaks. How much of it
a turn gives away, and how much was said in the end, are metrics of a user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MARKUP = re.compile(r"<[^>]+>")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def intent_of_goal(goal: Any) -> dict[str, str]:
    """{"intent": ...} of a goal written for people: {text} (CamRest676, CrossWOZ) or {message: [...]} (MultiWOZ)."""
    if not isinstance(goal, Mapping):
        return {}
    told = goal.get("message") or goal.get("text")
    parts = told if isinstance(told, list) else [told]
    lines = [_MARKUP.sub("", part).strip() for part in parts if isinstance(part, str)]
    return _intent("\n".join(line for line in lines if line))


def intent_of_states(turns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{"intent": ...} of dialogue states (SGD): what was asked of which service, and the values the user gave for it.

    A line per intent, `reserve restaurant: date the 8th, location Corte Madera`. Malformed states give none.
    """
    lines: dict[str, dict[str, str]] = {}
    for frame in (frame for turn in turns for frame in _items(turn.get("frames"))):
        state = frame.get("state") if isinstance(frame, Mapping) else None
        if not isinstance(state, Mapping):
            continue
        active = state.get("active_intent")
        if isinstance(active, str) and active != "NONE":
            lines.setdefault(active, {}).update(_values(state.get("slot_values")))
    return _intent("\n".join(_line(name, values) for name, values in lines.items()))


def _values(slots: Any) -> dict[str, str]:
    """The last value of each slot."""
    if not isinstance(slots, Mapping):
        return {}
    return {str(name): str(values[-1]) for name, values in slots.items() if isinstance(values, list) and values}


def _line(name: str, values: Mapping[str, str]) -> str:
    title = _CAMEL.sub(" ", name).lower()
    told = ", ".join(f"{slot.replace('_', ' ')} {value}" for slot, value in values.items())
    return f"{title}: {told}" if told else title


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _intent(text: str) -> dict[str, str]:
    return {"intent": text} if text else {}
