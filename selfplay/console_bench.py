"""What `selfplay bench` takes and shows in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfplay.errors import ConfigError


def named(given: Sequence[str]) -> dict[str, str]:
    """NAME=PATH texts by name; without a name the last part of the path is it.

    Raises:
        ConfigError: a name given twice.
    """
    rows: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or "/" in name:  # a path may hold an equals sign
            name, path = Path(text).name or text, text
        if name in rows:
            raise ConfigError(f"two rows are called {name!r}; name them, as in one={rows[name]}")
        rows[name] = path
    return rows
