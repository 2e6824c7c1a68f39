"""JSON-lines files that grow a row at a time, have one writer, and are whole after a kill but for half a last line."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfplay.errors import ConfigError, DataError
from selfplay.writing import replacing

Row = dict[str, Any]


class RowFile:
    """A file held by this process. Use `hold`."""

    def __init__(self, path: Path, file: Any, rows: list[Row]) -> None:
        self.path = path
        self.rows = rows
        """What it holds, in order."""
        self._file = file

    def append(self, row: Row) -> None:
        """Write a row; it is the system's once this returns, and the disk's at the end."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        self.rows.append(row)

    def arrange(self, key: Callable[[Row], Any], order: Callable[[Row], Any]) -> None:
        """Keep the last row of each key, in order, as FastChat leaves its files."""
        kept = {key(row): row for row in self.rows}
        self.rows = sorted(kept.values(), key=order)
        with replacing(self.path) as partial:
            partial.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in self.rows))


@contextmanager
def hold(path: Path) -> Iterator[RowFile]:
    """A file for appending; half a row at its end, of a writer that was killed, is cut off.

    Raises:
        ConfigError: another process writes to it.
        DataError: a row that cannot be read, with its line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another run writes {path}; wait for it, or give this one another --out") from None
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
        yield RowFile(path, file, list(_parsed(path, content[:whole])))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; half a row at its end is left out.

    Raises:
        DataError: missing, or a row that cannot be read, with its line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return list(_parsed(path, content[: content.rfind(b"\n") + 1] if b"\n" in content else content))


def _parsed(path: Path, content: bytes) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}); repair or remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
        yield row
