"""Files: rows as JSON lines or Parquet, by the ending of the name, that appear whole or not at all; and locks.

Rows are written beside their name and moved there once they are on the disk; what fails or is interrupted leaves
nothing behind.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selfplay.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP = 1000
"""Rows of one Parquet row group at most."""
_GROUP_BYTES = 32 << 20


def try_lock(path: Path, mode: str = "w") -> IO[Any] | None:
    """An open file, locked for this process; None where another process holds its lock.

    The lock ends when the file is closed, or with the process, however it ends.

    Raises:
        OSError: the file cannot be opened.
    """
    file = path.open(mode)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def check_name(out: Path) -> None:
    """Refuse a name that cannot be written before any work is done.

    Raises:
        ConfigError: another ending than .jsonl or .parquet, or a folder of that name.
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{out}: cannot write {out.suffix or 'this'}; name the file .jsonl or .parquet")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file, .jsonl or .parquet")


def write_lines(lines: Iterator[bytes], out: Path, schema: pa.Schema | None = None) -> None:
    """Write rows that are JSON lines already, each with its newline.

    Args:
        schema: the columns of a Parquet file; objects are written as JSON into columns of strings. Without one the
            columns are those of the first rows.

    Raises:
        ConfigError: see `check_name`.
        OSError: the file cannot be written.
    """
    check_name(out)
    with replacing(out) as partial:
        if out.suffix == ".parquet":
            _write_parquet(lines, partial, schema)
        else:
            with partial.open("wb") as file:
                file.writelines(lines)


def write_rows(rows: Iterator[dict[str, Any]], out: Path) -> None:
    """Write rows as they come.

    Raises:
        ConfigError, OSError: as `write_lines`.
    """
    write_lines((json_line(row) for row in rows), out)


def json_line(row: dict[str, Any]) -> bytes:
    """A row as UTF-8 with its newline. What has no place in JSON (a date) is written as text."""
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: kept as an escape
        return json.dumps(row, default=str).encode() + b"\n"


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A name to write to; what lies there at the end takes the place of `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _write_parquet(lines: Iterator[bytes], path: Path, schema: pa.Schema | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for group in _groups(lines):
        rows = [_flat(json.loads(line), schema) for line in group]
        table = pa.Table.from_pylist(rows, schema=schema)
        schema = table.schema
        writer = writer or pq.ParquetWriter(path, schema)
        writer.write_table(table)
    if writer is None:
        empty = schema or pa.schema([("id", pa.string())])
        pq.write_table(empty.empty_table(), path)
    else:
        writer.close()


def _flat(row: dict[str, Any], schema: pa.Schema | None) -> dict[str, Any]:
    """The row with its objects as JSON where the column holds strings."""
    if schema is None:
        return row
    texts = {name for name, value in row.items() if isinstance(value, dict) and schema.field(name).type == "string"}
    return {name: json.dumps(value) if name in texts else value for name, value in row.items()}


def _groups(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    for first in lines:
        group, size = [first], len(first)
        for line in islice(lines, _GROUP - 1):
            group.append(line)
            size += len(line)
            if size >= _GROUP_BYTES:
                break
        yield group
