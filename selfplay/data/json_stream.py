"""The values of a JSON array or map one after the other, without the whole text in memory.

Each value is parsed by the standard library out of a buffer that grows until the value is whole. What cannot become
valid by reading on is an error at once, so a broken file is not read into memory to its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK = 1 << 18
"""Characters read at a time; a longer value doubles what is read."""
_SPACE = re.compile(r"[ \t\n\r]*")
_CUT = 16
"""An error this near the end of what was read may come from the cut: a number, `tru`, half an escape."""


def array_values(text: TextIO) -> Iterator[Any]:
    """The values of an array.

    Raises:
        ValueError: not JSON, or cut off.
        RecursionError: nested too deeply.
    """
    scanner = _Scanner(text)
    for _ in scanner.parts("[", "]"):
        yield scanner.value()
    if rest := scanner.next():
        raise ValueError(f"{rest!r} after the end")


def objects(text: TextIO) -> Iterator[Iterator[tuple[str, Any]]]:
    """The keys and values of one object after the other; each has to be gone through before the next is asked for.

    Raises:
        ValueError, RecursionError: as `array_values`.
    """
    scanner = _Scanner(text)
    while scanner.next():
        yield _members(scanner)


def _members(scanner: _Scanner) -> Iterator[tuple[str, Any]]:
    for _ in scanner.parts("{", "}"):
        key = scanner.value()
        if not isinstance(key, str):
            raise ValueError(f"a key that is a {type(key).__name__}")
        scanner.take(":")
        yield key, scanner.value()


class _Scanner:
    """A position in a text of which a part is in memory."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._buffer = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def parts(self, opening: str, closing: str) -> Iterator[None]:
        """Stops before every part between the brackets."""
        self.take(opening)
        if self.next() != closing:
            yield
            while self.next() == ",":
                self.take(",")
                yield
        self.take(closing)

    def take(self, mark: str) -> None:
        """Step over a mark that has to be there."""
        found = self.next()
        if found != mark:
            raise ValueError(f"found {found!r}, expected {mark!r}" if found else f"ends before {mark!r}")
        self._at += 1

    def value(self) -> Any:
        """Step over a value."""
        self.next()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                if not (open_string or error.pos >= len(self._buffer) - _CUT) or not self._read():
                    raise
                continue
            if end == len(self._buffer) and not isinstance(value, str | dict | list) and self._read():
                continue  # more digits may follow
            self._at = end
            return value

    def next(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Forget what was stepped over and read on."""
        rest = self._buffer[self._at :]
        added = self._text.read(max(_CHUNK, len(rest)))
        self._buffer, self._at = rest + added, 0
        return bool(added)
