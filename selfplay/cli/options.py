"""Options and arguments that several commands parse alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from selfplay.errors import ConfigError

Settings = Annotated[list[str] | None, typer.Option("--set", help="Any setting: key.key=value.")]
Recipe = Annotated[str, typer.Argument(help="YAML file or shipped recipe.")]
Out = Annotated[Path, typer.Option(help="Output folder.")]


def parse_names(texts: Sequence[str]) -> dict[str, str]:
    """NAME=PATH texts by name; without a name the last part of the path is it.

    Raises:
        ConfigError: a name given twice, or a name alone.
    """
    rows: dict[str, str] = {}
    for text in texts:
        if text.startswith(("http://", "https://")):
            raise ConfigError(f"{text}: a server needs a name for the table; give NAME={text}")
        name, equals, path = text.partition("=")
        if not equals or "/" in name:  # a path may hold an equals sign
            name, path = Path(text).name or text, text
        if not path:
            raise ConfigError(f"{text!r} names no path; give NAME=PATH")
        if name in rows:
            raise ConfigError(f"two rows are called {name!r}; name them, as in one={rows[name]}")
        rows[name] = path
    return rows
