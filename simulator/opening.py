"""Openings of conversations: the fixed first turns that a file gives; without a file the simulator opens freely.

A file holds one user turn per line, or JSON lines: {"messages": [...]} or a bare list of messages, ending with a user
turn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Turn, check_turns
from selfplay.errors import DataError, InvalidConversation


def read_openings(path: Path) -> list[tuple[Turn, ...]]:
    """Read the openings of a file in order.

    Raises:
        DataError: the file is unreadable or empty, or a line is not an opening (with file and line number).
    """
    try:
        # split("\n"), not splitlines(): other line separators (U+2028, form feed) may be part of a turn.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected one first user turn per line, or JSONL") from error
    parse = _message_line if path.suffix == ".jsonl" else _text_line
    openings = [parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not openings:
        raise DataError(f"{path}: holds no opening; expected one first user turn per line, or JSONL of messages")
    return openings


def _text_line(line: str, place: str) -> tuple[Turn, ...]:
    """An opening from a line of plain text."""
    turns = (Turn("user", line.strip(), "fixed"),)
    check_turns(place, turns)
    return turns


def _message_line(line: str, place: str) -> tuple[Turn, ...]:
    """An opening from a line of JSON messages."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: not JSON ({error.msg}); a .jsonl file holds one list of messages per line"
        ) from error
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list):
        raise DataError(f"{place}: expected a list of messages or {{'messages': [...]}}, found {type(value).__name__}")
    turns = tuple(_turn(message, place) for message in messages)
    try:
        check_turns(place, turns)
    except InvalidConversation as error:
        raise DataError(str(error)) from error
    if turns[-1].role != "user":
        raise DataError(f"{place}: ends with a {turns[-1].role} turn; an opening ends where the assistant answers")
    return turns


def _turn(message: Any, place: str) -> Turn:
    """A turn from a JSON message, checked."""
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
        raise DataError(f"{place}: a message needs a role of system, user or assistant; found {message!r}")
    if not isinstance(message.get("content"), str):
        raise DataError(f"{place}: a message needs text in 'content'; found {message.get('content')!r}")
    return Turn(message["role"], message["content"].strip(), "fixed")
