"""Text of figures and tables: cells with intervals, and tables in Markdown.

The module does not know what a figure measures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.intervals import Measurement
from selfplay.files import replacing

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""The title, the header and the rows of a table."""


def cell(estimate: Measurement | None, brief: bool = False, digits: int | None = None) -> str:
    """Format a figure with its interval; None gives an empty text.

    Args:
        estimate: the figure.
        brief: omit the interval.
        digits: the number of decimals; if omitted, 1 to 3 of them, fewer for larger values.
    """
    if estimate is None:
        return ""
    if digits is None:
        digits = 1 if estimate.value >= 100 else 2 if estimate.value >= 10 else 3
    value = f"{estimate.value:.{digits}f}"
    return value if brief else f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """Format a fenced block of text.

    The fence is longer than any run of backticks in the text, so that the text cannot end it early.
    """
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
