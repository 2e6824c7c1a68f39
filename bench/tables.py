"""Figures and tables as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.intervals import Measurement
from selfplay.files import replacing

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header, rows."""


def cell(estimate: Measurement | None, brief: bool = False, digits: int | None = None) -> str:
    """A figure with its interval; `brief` leaves the interval out, None is nothing.

    Args:
        digits: after the point; left out, three figures and more.
    """
    if estimate is None:
        return ""
    if digits is None:
        digits = 1 if estimate.value >= 100 else 2 if estimate.value >= 10 else 3
    value = f"{estimate.value:.{digits}f}"
    return value if brief else f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """A block of text, fenced by more backticks than it holds, so that nothing in it is markup."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
