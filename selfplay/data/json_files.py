"""JSON files: lines, and `.json` files of several shapes, read as they stream."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from selfplay.data.json_stream import array_values, objects
from selfplay.data.raw_rows import BOM, Cells, Numbered, batched
from selfplay.errors import DataError

_DEPTH = 100
"""Deepest nesting of a row that is read."""
_HEAD = 1 << 20
"""How far the first line of a `.json` file is looked for, in bytes."""


def json_lines(path: Path, stream: io.BufferedReader) -> Iterator[Numbered]:
    """One row per line, decoded later."""
    numbered = enumerate(stream, start=1)
    return batched((number, line, len(line)) for number, line in numbered if not line.isspace())


def json_file(path: Path, stream: io.BufferedReader) -> Iterator[Numbered]:
    """A `.json` file: an array of rows, a map from id to row, one row, or JSON lines under the wrong name."""
    if stream.peek(3)[:3] == BOM:
        stream.read(3)
    head = _head(stream)
    start = head.lstrip()[:1]
    whole: Any = io.BufferedReader(_Rewound(head, stream), 1 << 18)
    if start == b"{" and _is_lines(head):
        yield from json_lines(path, whole)
        return
    text = io.TextIOWrapper(whole, encoding="utf-8")
    if start == b"[":
        yield from batched(_sized(array_values(text)))
    elif start == b"{":
        yield from batched(_sized(_values(text)))
    elif start:
        raise DataError(f"{path}: starts with {head.lstrip()[:20]!r}; expected a JSON array or map of rows")


def _values(text: TextIO) -> Iterator[Any]:
    """The rows of objects one after the other, each a map of rows or a row itself."""
    for members in objects(text):
        head = list(islice(members, 2))
        kinds = {_kind(value) for _, value in head}
        if kinds == {"row"}:
            for key, value in chain(head, members):
                yield {"id": key, **value} if isinstance(value, dict) else value
        elif kinds == {"rows"} and len(head) == 2:  # splits or categories, each a list of rows
            for _, value in chain(head, members):
                yield from value if isinstance(value, list) else [value]
        else:
            yield dict(chain(head, members))


def _kind(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return "rows"
    return "row" if isinstance(value, dict) else "value"


def _head(stream: io.BufferedReader) -> bytes:
    """The first line, or the first _HEAD bytes of a long one, and a byte of what follows."""
    line = stream.readline(_HEAD)
    while line.isspace():
        line = stream.readline(_HEAD)
    return line + stream.read(1)


def _is_lines(head: bytes) -> bool:
    """Whether a file that starts so holds one object per line."""
    line, newline, more = head.partition(b"\n")
    if not newline:
        return False
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return bool(more) or not all(isinstance(value, dict) for value in first.values())


class _Rewound(io.RawIOBase):
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: io.BufferedReader) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self._rest.read1(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _sized(items: Iterable[Any]) -> Iterator[tuple[int, Any, int]]:
    """Parsed rows with their number and about how many bytes they take."""
    for number, item in enumerate(items):
        try:
            yield number, item, _size(item)
        except RecursionError:
            yield number, Cells({}, "nested too deeply"), 0


def _size(item: Any, depth: int = 0) -> int:
    if depth > _DEPTH:
        raise RecursionError
    if isinstance(item, dict):
        return sum(_size(value, depth + 1) for value in item.values())
    if isinstance(item, list):
        return sum(_size(value, depth + 1) for value in item)
    return len(item) if isinstance(item, str) else 8
