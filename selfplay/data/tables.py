"""Tables: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfplay.data.raw_rows import BATCH_ROWS, Batch, Cells, Numbered, batched

_LONGEST = 64 << 20
"""Characters of a table's longest cell."""


def table_file(path: Path, stream: io.BufferedReader) -> Iterator[Numbered]:
    """CSV and TSV. A first line that holds more than names is a row already; its columns are numbered."""
    csv.field_size_limit(_LONGEST)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    tabs = path.name.removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
    reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text, strict=True)
    try:
        yield from batched(_cells(reader))
    finally:
        text.detach()  # the stream is closed by who opened it


def _cells(reader: Any) -> Iterator[tuple[int, Cells, int]]:
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ValueError(f"a quote opened before line {reader.line_num} is never closed") from error
            yield reader.line_num, Cells({}, f"not a table row ({error})"), 0
            continue
        if not cells:
            continue
        if header is None:
            named = any(cells) and all(len(cell) <= 64 and "<" not in cell for cell in cells)
            header = cells if named else [f"column_{number}" for number in range(1, len(cells) + 1)]
            if named:
                continue
        wrong = None if len(cells) == len(header) else f"{len(cells)} cells, expected {len(header)} as in the header"
        yield reader.line_num, Cells(dict(zip(header, cells, strict=False)), wrong), sum(map(len, cells))


def parquet_file(path: Path) -> Iterator[Batch]:
    """Record batches, turned into rows later."""
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
