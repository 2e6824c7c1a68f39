"""Parser of judge verdicts, and filler of judge prompts: FastChat's patterns and tie rule (arXiv:2306.05685).

It knows texts only: not who judges, and not which answers are judged.

A judge may also answer in JSON (structured output): {"explanation", "rating"} or {"explanation", "winner"}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any, Literal

from selfplay.errors import DataError

Winner = Literal["A", "B", "tie"]
RATING, WINNER, RATINGS = "[[rating]]", "[[A]]", "[[rating_a,rating_b]]"
"""Output formats of judge prompts."""
TIE_DELTA = 0.1
_LOWEST, _HIGHEST = 1, 10

_NUMBER = r"(\d+\.?\d*)"
_RATING = (re.compile(rf"\[\[{_NUMBER}\]\]"), re.compile(rf"\[{_NUMBER}\]"))
_RATINGS = (re.compile(rf"\[\[{_NUMBER},\s?{_NUMBER}\]\]"), re.compile(rf"\[{_NUMBER},\s?{_NUMBER}\]"))

_TEXT = {"type": "string"}
_VERDICTS: dict[str, dict[str, Any]] = {
    RATING: {"rating": {"type": "integer", "enum": list(range(_LOWEST, _HIGHEST + 1))}},
    WINNER: {"winner": {"type": "string", "enum": ["A", "B", "tie"]}},
}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the fields of a judge prompt. Fields are plain names; braces inside the values stay as they are.

    Raises:
        DataError: the template has a field that is not among the values, or one with a format or a conversion.
    """
    parts = []
    # Not str.format: a template field such as {answer.__class__} would reach into the value.
    for text, name, spec, conversion in Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if name not in values or spec or conversion:
            raise DataError(f"judge prompt: cannot fill {{{name}}}; known are {', '.join(values)}")
        parts.append(values[name])
    return "".join(parts)


def rating_of(text: str) -> int | float | None:
    """Parse the rating in a judgment: JSON, else [[5]], else [5]. None if there is no rating from 1 to 10."""
    rating = _json(text).get("rating")
    if rating is None:
        match = next((hit for pattern in _RATING if (hit := pattern.search(text))), None)
        rating = None if match is None else _number(match[1])
    # bool is a subclass of int, so {"rating": true} would be a 1.
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not _LOWEST <= rating <= _HIGHEST:
        return None
    return rating


def winner_of(text: str, format: str) -> Winner | None:
    """Parse the winner in a judgment: JSON, else FastChat's marks. None if the judgment names no winner."""
    structured = _json(text).get("winner")
    if structured in ("A", "B", "tie"):
        return structured  # type: ignore[no-any-return]
    if format == RATINGS:
        match = next((hit for pattern in _RATINGS if (hit := pattern.search(text))), None)
        if match is None:
            return None
        first, second = _number(match[1]), _number(match[2])
        return "tie" if abs(first - second) <= TIE_DELTA else "A" if first > second else "B"
    for mark, winner in (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie")):
        if mark in text:
            return winner  # type: ignore[return-value]
    return None


def schema_of(format: str) -> dict[str, Any]:
    """The JSON schema of a structured verdict.

    Raises:
        DataError: there is no schema for this output format.
    """
    if format not in _VERDICTS:
        raise DataError(f"judge prompt with output format {format!r}: no structured form; leave --structured out")
    properties = {"explanation": _TEXT, **_VERDICTS[format]}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _json(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
