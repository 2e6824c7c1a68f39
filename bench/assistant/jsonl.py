"""JSON-lines files that grow a row at a time, have one writer, and are whole after a kill but for half a last line."""

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
    """A file held by this process. Use `open_locked`."""

    def __init__(self, path: Path, file: IO[Any]) -> None:
        self.path = path
        self._file = file
        self.rows: list[Row] = _repaired(path, file)
        """What it holds, in order."""

    def append(self, row: Row) -> None:
        """Write a row; it is the system's once this returns, and the disk's at the end."""
        self._file.write(_line(row))
        self._file.flush()
        self.rows.append(row)

    def sort_and_dedup(self, key: Callable[[Row], Any], order: Callable[[Row], Any]) -> None:
        """Keep the last row of each key, in order, as FastChat leaves its files."""
        kept = sorted({key(row): row for row in self.rows}.values(), key=order)
        if kept == self.rows:
            return
        with replacing(self.path) as partial:
            partial.write_bytes(b"".join(map(_line, kept)))
        old, self._file = self._file, _locked(self.path)
        old.close()
        self.rows = kept

    def close(self) -> None:
        """Bring it to the disk and let it go."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def open_locked(path: Path) -> Iterator[RowFile]:
    """A file for appending; half a row at its end, of a writer that was killed, is cut off.

    Raises:
        ConfigError: another process writes to it.
        DataError: a row that cannot be read, with its line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = RowFile(path, _locked(path))
    try:
        yield held
    finally:
        held.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; half a row at its end is left out.

    Raises:
        DataError: missing, or a row that cannot be read, with its line.
    """
    return [row for _, row in placed_rows(path)]


def placed_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The same with the place of each, `path:line`.

    Raises:
        DataError: see `read_rows`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    yield from _parsed(path, content[: _whole(content)])


def _locked(path: Path) -> IO[Any]:
    """The file under a name, open and locked; opened again if it was replaced between the two."""
    while True:
        file = try_lock(path, "ab")
        if file is None:
            raise ConfigError(f"another run writes {path}; wait for it, or give this one another --out")
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _repaired(path: Path, file: IO[Any]) -> list[Row]:
    """The rows; half a one is cut off, and a last one without its newline gets it."""
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
    """Length of what is whole: up to the last newline, or to the end where the last line is an object too."""
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
