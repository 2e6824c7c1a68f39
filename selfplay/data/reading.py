"""Rows out of files, in batches that a worker process can decode: JSON lines, JSON, CSV, TSV, Parquet; gzip and zstd.

A row comes with where it stood. A row that cannot be read is yielded as an error, so that the caller decides between
counting and stopping. Nothing here holds more than one batch: a JSON array or map is parsed as it streams.

batch  up to BATCH_ROWS rows or about BATCH_BYTES bytes, not yet decoded where the file's kind allows it
place  `file:line` (JSON lines, tables) or `file[index]` (JSON arrays, Parquet)
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from backports import zstd

from selfplay.data.json_stream import array_values, objects
from selfplay.errors import BadRow, DataError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 256
BATCH_BYTES = 1 << 20
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_BOM = b"\xef\xbb\xbf"
_BROKEN = (OSError, EOFError, ValueError, RecursionError, zlib.error, zstd.ZstdError)
"""What the libraries raise on a file that is not what its name says."""
_LONGEST = 64 << 20
"""Characters of a table's longest cell."""
_DEPTH = 100
"""Deepest nesting of a row that is read."""
_HEAD = 1 << 20
"""How far the first line of a `.json` file is looked for, in bytes."""


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
            elif isinstance(item, _Cells):
                yield item.row(f"{self.file}:{number}")
            else:
                yield _row(f"{self.file}[{number}]", item)


@dataclass(frozen=True, slots=True)
class _Cells:
    """A row that was parsed ahead: cells by column name, or what is wrong with it."""

    cells: dict[str, str]
    error: str | None = None

    def row(self, place: str) -> Row:
        return Row(place, None if self.error else self.cells, self.error)


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a file.

    Raises:
        DataError: see `read_batches`.
    """
    for batch in read_batches(path):
        yield from batch.rows()


def read_batches(path: Path) -> Iterator[Batch]:
    """Every batch of a file, in order.

    Raises:
        DataError: the file is missing, a folder, of another kind, or cannot be read to its end.
    """
    kind = check_file(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        with path.open("rb", buffering=1 << 18) as raw, _decompressed(path, raw) as stream:
            size = max(1, path.stat().st_size)
            for numbers, items in _KINDS[kind](path, stream):
                yield Batch(path.name, numbers, items, min(1.0, raw.tell() / size))
    except DataError:
        raise
    except _BROKEN as error:
        reason = str(error).partition("\n")[0].strip()
        raise DataError(f"{path}: cannot be read to its end ({reason}); is the file whole?") from error


def check_file(path: Path) -> str:
    """The kind of a file by its name, without `.gz` or `.zst`.

    Raises:
        DataError: missing, a folder, or of a kind that is not read.
    """
    expected = f"expected a file {', '.join(SUFFIXES)}, plain, .gz or .zst"
    if path.is_dir() or not path.exists():
        found = "a folder; give the files in it one by one" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {found}; {expected}")
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    kind = Path(name).suffix
    if kind not in SUFFIXES or (kind == ".parquet" and name != path.name):
        raise DataError(f"{path}: cannot read {''.join(path.suffixes) or 'this'} files; {expected}")
    return kind


def batched(items: Iterable[tuple[int, Any, int]]) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
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


def _decompressed(path: Path, raw: BinaryIO) -> Any:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18)
    if path.suffix == ".zst":
        return io.BufferedReader(zstd.ZstdFile(raw), 1 << 18)
    return raw


def _lines(path: Path, stream: io.BufferedReader) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    numbered = enumerate(stream, start=1)
    return batched((number, line, len(line)) for number, line in numbered if not line.isspace())


def _decoded(place: str, line: bytes) -> Row:
    try:
        return _row(place, json.loads(line.removeprefix(_BOM)))
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


def _json(path: Path, stream: io.BufferedReader) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    """A `.json` file: an array of rows, a map from id to row, one row, or JSON lines under the wrong name."""
    if stream.peek(3)[:3] == _BOM:
        stream.read(3)
    head = _head(stream)
    start = head.lstrip()[:1]
    whole: Any = io.BufferedReader(_Rewound(head, stream), 1 << 18)
    if start == b"{" and _is_lines(head):
        yield from _lines(path, whole)
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
            yield number, _Cells({}, "nested too deeply"), 0


def _size(item: Any, depth: int = 0) -> int:
    if depth > _DEPTH:
        raise RecursionError
    if isinstance(item, dict):
        return sum(_size(value, depth + 1) for value in item.values())
    if isinstance(item, list):
        return sum(_size(value, depth + 1) for value in item)
    return len(item) if isinstance(item, str) else 8


def _table(path: Path, stream: io.BufferedReader) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    """CSV and TSV. A first line that holds more than names is a row already; its columns are numbered."""
    csv.field_size_limit(_LONGEST)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    tabs = path.name.removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
    reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text, strict=True)
    try:
        yield from batched(_cells(reader))
    finally:
        text.detach()  # the stream is closed by who opened it


def _cells(reader: Any) -> Iterator[tuple[int, _Cells, int]]:
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ValueError(f"a quote opened before line {reader.line_num} is never closed") from error
            yield reader.line_num, _Cells({}, f"not a table row ({error})"), 0
            continue
        if not cells:
            continue
        if header is None:
            named = any(cells) and all(len(cell) <= 64 and "<" not in cell for cell in cells)
            header = cells if named else [f"column_{number}" for number in range(1, len(cells) + 1)]
            if named:
                continue
        wrong = None if len(cells) == len(header) else f"{len(cells)} cells, expected {len(header)} as in the header"
        yield reader.line_num, _Cells(dict(zip(header, cells, strict=False)), wrong), sum(map(len, cells))


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
                rows.append(_Cells({}, f"a value that cannot be read ({type(error).__name__})"))
    return rows


def _parquet(path: Path) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from _groups(path, pq.ParquetFile(path))
    except pa.ArrowException as error:
        raise ValueError(error) from error


def _groups(path: Path, parquet: Any) -> Iterator[Batch]:
    with parquet as file:
        total = max(1, file.metadata.num_rows)
        first = 0
        for table in file.iter_batches(batch_size=BATCH_ROWS):
            last = first + table.num_rows
            yield Batch(path.name, tuple(range(first, last)), table, last / total)
            first = last


_KINDS = {".json": _json, ".jsonl": _lines, ".csv": _table, ".tsv": _table}
