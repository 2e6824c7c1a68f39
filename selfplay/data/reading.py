"""Rows out of files: JSON lines, JSON, CSV, TSV, Parquet; gzip and zstd.

A row that cannot be read is yielded as an error with its place, so that the caller decides between counting and
stopping. Nothing here holds more than one batch: a JSON array or map is parsed as it streams.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from backports import zstd

from selfplay.data.json_files import json_file, json_lines
from selfplay.data.raw_rows import Batch
from selfplay.data.tables import parquet_file, table_file
from selfplay.errors import DataError

_KINDS = {".json": json_file, ".jsonl": json_lines, ".csv": table_file, ".tsv": table_file}
_BROKEN = (OSError, EOFError, ValueError, RecursionError, zlib.error, zstd.ZstdError)
"""What the libraries raise on a file that is not what its name says."""


def read_batches(path: Path) -> Iterator[Batch]:
    """Every batch of a file, in order.

    Raises:
        DataError: the file is missing, a folder, of another kind, or cannot be read to its end.
    """
    kind = check_file(path)
    try:
        if kind == ".parquet":
            yield from parquet_file(path)
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
    expected = f"expected a file {', '.join(_KINDS)}, plain, .gz or .zst, or .parquet"
    if path.is_dir() or not path.exists():
        found = "a folder; give the files in it one by one" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {found}; {expected}")
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    kind = Path(name).suffix
    if kind not in _KINDS and (kind != ".parquet" or name != path.name):
        raise DataError(f"{path}: cannot read {''.join(path.suffixes) or 'this'} files; {expected}")
    return kind


def _decompressed(path: Path, raw: BinaryIO) -> Any:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18)
    if path.suffix == ".zst":
        return io.BufferedReader(zstd.ZstdFile(raw), 1 << 18)
    return raw
