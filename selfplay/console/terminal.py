"""The two streams of the terminal, and what every command prints: lines, tables, recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
"""Results."""


err = Console(stderr=True, highlight=False)
"""Progress and errors."""


def printable(text: str) -> str:
    """Text of models and servers without terminal control characters."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def say(line: str) -> None:
    """A line of progress; data in it is not markup."""
    err.print(line, markup=False, soft_wrap=True)


def print_recipes(recipes: Mapping[str, str]) -> None:
    """Names and descriptions of recipes."""
    table = Table("recipe", "what it does")
    for name, description in recipes.items():
        table.add_row(name, description)
    out.print(table)


def print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)
