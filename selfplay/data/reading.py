"""Rows out of files: JSON lines or a JSON array, plain or gzip. Every row comes with where it stood.

A bad line is yielded as an error with file and line number, so that the caller decides between counting and stopping.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from selfplay.errors import BadRow, DataError


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row, or why there is none; `place` reads `file:line` (JSON lines) or `file[index]` (arrays)."""

    place: str
    data: Mapping[str, Any] | None
    error: str | None = None

    def value(self) -> Mapping[str, Any]:
        """The row's data.

        Raises:
            BadRow: the line held none.
        """
        if self.data is None:
            raise BadRow(self.error or "not an object")
        return self.data


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a `.jsonl` or `.json` file, gzip or not.

    Raises:
        DataError: the file is missing, a folder, unreadable, or of another kind.
    """
    if path.is_dir() or not path.exists():
        found = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {found}; expected a .jsonl or .json file, plain or .gz")
    suffix = "".join(path.suffixes[-2:]).removesuffix(".gz")
    if not suffix.endswith((".json", ".jsonl")):
        raise DataError(f"{path}: cannot read {path.suffix or 'this'} files; expected .jsonl or .json, plain or .gz")
    try:
        with _open(path) as stream:
            yield from _lines(path, stream) if suffix.endswith(".jsonl") else _array(path, stream)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read to its end ({error}); is the file whole?") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _lines(path: Path, stream: TextIO) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield _row(f"{path.name}:{number}", json.loads(line))
        except json.JSONDecodeError as error:
            yield Row(f"{path.name}:{number}", None, f"not JSON ({error.msg} at column {error.colno})")


def _array(path: Path, stream: TextIO) -> Iterator[Row]:
    try:
        items = json.load(stream)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error.msg}, line {error.lineno}); expected an array of rows") from error
    if not isinstance(items, list):
        raise DataError(f"{path}: holds a JSON {type(items).__name__}; expected an array of rows")
    for index, item in enumerate(items):
        yield _row(f"{path.name}[{index}]", item)


def _row(place: str, item: Any) -> Row:
    if isinstance(item, dict):
        return Row(place, item)
    return Row(place, None, f"a JSON {type(item).__name__}, expected an object")
