"""The parser of verdicts, and what a judge is asked: FastChat's prompts, patterns and tie rule (arXiv:2306.05685).

Judges may also answer in JSON (structured output): {"explanation", "rating"} or {"explanation", "winner"}.
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
    """A judge prompt with its fields filled. Fields are plain names; what texts hold in braces stays text.

    Raises:
        DataError: the template has a field that is not among the values.
    """
    parts = []
    for text, name, spec, conversion in Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if name not in values or spec or conversion:
            raise DataError(f"judge prompt: cannot fill {{{name}}}; known are {', '.join(values)}")
        parts.append(values[name])
    return "".join(parts)


def rating_of(text: str) -> int | float | None:
    """The rating in a judgment, None where there is none from 1 to 10. [[5]], else [5], else JSON."""
    told = _json(text).get("rating")
    if told is None:
        match = next((found for pattern in _RATING if (found := pattern.search(text))), None)
        told = None if match is None else _number(match[1])
    if isinstance(told, bool) or not isinstance(told, int | float) or not _LOWEST <= told <= _HIGHEST:
        return None
    return told


def winner_of(text: str, format: str) -> Winner | None:
    """The winner in a judgment, None where it names none."""
    told = _json(text).get("winner")
    if told in ("A", "B", "tie"):
        return told  # type: ignore[no-any-return]
    if format == RATINGS:
        match = next((found for pattern in _RATINGS if (found := pattern.search(text))), None)
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
        DataError: the format has none.
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
