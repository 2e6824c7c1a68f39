"""Append-only JSON-lines files with one writer at a time, readable after a kill.

A file grows by one row at a time, so a kill can damage at most its last line, which readers leave out and the next
writer cuts off. The module does not know what the rows mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from selfplay.errors import ConfigError, DataError
from selfplay.files import replacing, try_lock

Row = dict[str, Any]


class RowFile:
    """A JSON-lines file that is open and locked by this process. Create it with `open_locked`."""

    def __init__(self, path: Path, file: IO[Any]) -> None:
        self.path = path
        self._file = file
        self.rows: list[Row] = _repaired(path, file)
        """The rows of the file, in order."""

    def append(self, row: Row) -> None:
        """Write a row. It survives a kill of the process once this returns, and a power cut once the file is closed."""
        self._file.write(_line(row))
        self._file.flush()
        self.rows.append(row)

    def sort_and_dedup(self, key: Callable[[Row], Any], order: Callable[[Row], Any]) -> None:
        """Keep the last row of each key, sorted by `order`, as FastChat leaves its files."""
        kept = sorted({key(row): row for row in self.rows}.values(), key=order)
        if kept == self.rows:
            return
        with replacing(self.path) as partial:
            partial.write_bytes(b"".join(map(_line, kept)))
        # The lock belongs to the replaced file, not to the name: the new file has to be opened and locked itself.
        old, self._file = self._file, _locked(self.path)
        old.close()
        self.rows = kept

    def close(self) -> None:
        """Flush the file to the disk, close it and release its lock."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def open_locked(path: Path) -> Iterator[RowFile]:
    """Open a file for appending, with a lock; a partial last row, of a writer that was killed, is cut off.

    Raises:
        ConfigError: another process writes to the file.
        DataError: a row cannot be read; the message gives its line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row_file = RowFile(path, _locked(path))
    try:
        yield row_file
    finally:
        row_file.close()


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; a partial last row is left out.

    Raises:
        DataError: the file is missing, or a row cannot be read; the message gives its line.
    """
    return [row for _, row in placed_rows(path)]


def placed_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file, each with its place, `path:line`.

    Raises:
        DataError: see `read_rows`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    yield from _parsed(path, content[: _whole(content)])


def _locked(path: Path) -> IO[Any]:
    """Open and lock the file under a name."""
    while True:
        file = try_lock(path, "ab")
        if file is None:
            raise ConfigError(f"another run writes {path}; wait for it, or give this one another --out")
        # The file may have been replaced between opening and locking: then the lock is on a file without a name.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _repaired(path: Path, file: IO[Any]) -> list[Row]:
    """Read the rows, cut off a partial last row, and add the newline to a whole last row that lacks it."""
    content = path.read_bytes()
    whole = _whole(content)
    rows = [row for _, row in _parsed(path, content[:whole])]
    if whole < len(content):
        file.truncate(whole)
    if whole and content[whole - 1 : whole] != b"\n":
        file.write(b"\n")
        file.flush()
    return rows


def _whole(content: bytes) -> int:
    """Length of the part with whole rows: up to the last newline, or to the end if the last line is an object too."""
    end = content.rfind(b"\n") + 1
    try:
        return len(content) if isinstance(json.loads(content[end:]), dict) else end
    except ValueError:
        return end


def _parsed(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}); repair or remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object, found {type(row).__name__}")
        yield place, row


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"
