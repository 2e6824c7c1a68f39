"""What `selfplay loop` shows in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.console import print_rows
from selfplay.errors import ConfigError

if TYPE_CHECKING:
    from selfplay.loop.ledger import Entry


def given(*folders: Path | None) -> Path:
    """The folder of a loop.

    Raises:
        ConfigError: none is named.
    """
    named = [folder for folder in folders if folder is not None]
    if not named:
        raise ConfigError("name the loop's folder: selfplay loop RECIPE --out FOLDER, selfplay loop status FOLDER")
    return named[0]


def print_status(entries: Sequence[Entry]) -> None:
    """A row a stage: state, duration, figures."""
    rows = [
        (f"{entry.iteration} {entry.stage}", _state(entry), _duration(entry), "  ".join(_figures(entry.figures)))
        for entry in entries
    ]
    print_rows("loop", ("stage", "state", "time", "figures"), rows)


def _state(entry: Entry) -> str:
    return entry.state if entry.error is None else f"{entry.state}: {entry.error}"


def _duration(entry: Entry) -> str:
    return "" if entry.seconds is None else str(timedelta(seconds=round(entry.seconds)))


def _figures(figures: dict[str, Any]) -> list[str]:
    return [f"{name} {_figure(value)}" for name, value in figures.items() if value is not None]


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
