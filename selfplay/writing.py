"""Rows to files: JSON lines or Parquet, by the ending of the name. Files appear whole or not at all.

Rows are written beside their name and moved there once they are on the disk; what fails or is interrupted leaves
nothing behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from selfplay.errors import ConfigError

_GROUP = 1000
"""Rows of one Parquet row group at most."""
_GROUP_BYTES = 32 << 20


def check_name(out: Path) -> None:
    """Refuse a name that cannot be written before any work is done.

    Raises:
        ConfigError: another ending than .jsonl or .parquet, or a folder of that name.
    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"{out}: cannot write {out.suffix or 'this'}; name the file .jsonl or .parquet")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file, .jsonl or .parquet")


def write_lines(lines: Iterator[bytes], out: Path) -> None:
    """Write rows that are JSON lines already, each with its newline.

    Raises:
        ConfigError: see `check_name`.
        OSError: the file cannot be written.
    """
    check_name(out)
    with replacing(out) as partial:
        WRITERS[out.suffix](lines, partial)


def write_rows(rows: Iterator[dict[str, Any]], out: Path) -> None:
    """Write rows as they come.

    Raises:
        ConfigError, OSError: as `write_lines`.
    """
    write_lines((json_line(row) for row in rows), out)


def json_line(row: dict[str, Any]) -> bytes:
    """A row as UTF-8 with its newline."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


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


def _write_jsonl(lines: Iterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(lines)


def _write_parquet(lines: Iterator[bytes], path: Path) -> None:
    """Columns are those of the first group; a later group has to fit them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for group in _groups(lines):
        table = pa.Table.from_pylist([json.loads(line) for line in group], schema=writer and writer.schema)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is None:
        pq.write_table(pa.table({"id": pa.array([], pa.string())}), path)
    else:
        writer.close()


def _groups(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    for first in lines:
        group, size = [first], len(first)
        for line in islice(lines, _GROUP - 1):
            group.append(line)
            size += len(line)
            if size >= _GROUP_BYTES:
                break
        yield group


WRITERS: dict[str, Callable[[Iterator[bytes], Path], None]] = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
