"""Rows on their way from a file to a converter: in batches that a worker process can decode.

batch  up to BATCH_ROWS rows or about BATCH_BYTES bytes, not yet decoded where the file's kind allows it
place  `file:line` (JSON lines, tables) or `file[index]` (JSON arrays, Parquet)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfplay.errors import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 256
BATCH_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
Numbered = tuple[tuple[int, ...], list[Any]]
"""The numbers and items of a batch."""


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row, or why there is none."""

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows of one file. `items` holds lines, parsed objects, or a Parquet record batch."""

    file: str
    numbers: tuple[int, ...]
    items: list[Any] | pa.RecordBatch
    share: float | None = None
    """How much of the file was read when the batch was cut, from 0 to 1."""

    def rows(self) -> Iterator[Row]:
        """Decode the batch."""
        items = self.items if isinstance(self.items, list) else _python_rows(self.items)
        for number, item in zip(self.numbers, items, strict=True):
            if isinstance(item, bytes):
                yield _decoded(f"{self.file}:{number}", item)
            elif isinstance(item, Cells):
                yield item.row(f"{self.file}:{number}")
            else:
                yield _row(f"{self.file}[{number}]", item)


@dataclass(frozen=True, slots=True)
class Cells:
    """A row that was parsed ahead: cells by column name, or what is wrong with it."""

    cells: dict[str, str]
    error: str | None = None

    def row(self, place: str) -> Row:
        """The row with its place."""
        return Row(place, None if self.error else self.cells, self.error)


def batched(items: Iterable[tuple[int, Any, int]]) -> Iterator[Numbered]:
    """Cut (number, item, bytes) triples into batches."""
    numbers: list[int] = []
    kept: list[Any] = []
    size = 0
    for number, item, length in items:
        numbers.append(number)
        kept.append(item)
        size += length
        if len(kept) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield tuple(numbers), kept
            numbers, kept, size = [], [], 0
    if kept:
        yield tuple(numbers), kept


def _decoded(place: str, line: bytes) -> Row:
    try:
        return _row(place, json.loads(line.removeprefix(BOM)))
    except json.JSONDecodeError as error:
        return Row(place, None, f"not JSON ({error.msg} at column {error.colno})")
    except UnicodeDecodeError:
        return Row(place, None, "not UTF-8")
    except ValueError:
        return Row(place, None, "not JSON (a number with too many digits)")
    except RecursionError:
        return Row(place, None, "nested too deeply")


def _row(place: str, item: Any) -> Row:
    """An object as it is; a bare list of turns and a bare prompt under the keys such rows have elsewhere."""
    if isinstance(item, dict):
        return Row(place, item)
    if isinstance(item, list) and item and all(isinstance(turn, dict) for turn in item):
        return Row(place, {"messages": item})
    if isinstance(item, str):
        return Row(place, {"prompt": item})
    return Row(place, None, f"a JSON {type(item).__name__}, expected an object")


def _python_rows(table: pa.RecordBatch) -> list[Any]:
    """Rows of a record batch; where a value has no Python form (a date in the year 150,000), row by row."""
    rows: list[Any] = []
    try:
        rows = table.to_pylist()
    except Exception:  # Arrow's own errors, ValueError, OverflowError, UnicodeDecodeError, by type of the column
        for number in range(table.num_rows):
            try:
                rows += table.slice(number, 1).to_pylist()
            except Exception as error:
                rows.append(Cells({}, f"a value that cannot be read ({type(error).__name__})"))
    return rows
