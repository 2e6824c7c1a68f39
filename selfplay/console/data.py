"""The printed results of `selfplay data`: progress while rows are cleaned, tables of steps, datasets and formats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from selfplay.console.terminal import err, out, print_rows, say
from selfplay.data.catalogue import Dataset
from selfplay.data.cleaning.report import Tally
from selfplay.data.formats import Format

if TYPE_CHECKING:
    from selfplay.data.mixing import MixResult


@contextmanager
def cleaning_progress() -> Iterator[Callable[[int, float | None], None]]:
    """A progress bar over source rows: call it with the rows read so far and their share of the sources, if known."""
    name = TextColumn("[bold]{task.description}")
    rates = TextColumn("{task.fields[rows]:,} rows · {task.fields[rate]:,.0f} rows/s")
    started = time.monotonic()
    with Progress(name, BarColumn(), TaskProgressColumn(), rates, TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task("cleaning", total=1.0, rows=0, rate=0.0)

        def update(rows: int, share: float | None) -> None:
            rate = rows / max(1e-3, time.monotonic() - started)
            total = None if share is None else 1.0
            progress.update(task, total=total, completed=share or 0.0, rows=rows, rate=rate)

        yield update


def print_cleaning(tally: Tally, path: Path) -> None:
    """What each step did, and why rows are not in the output."""
    table = Table(Column("step", no_wrap=True), *(Column(name, justify="right") for name in _CLEANING))
    table.add_row("read", _change(tally.rows, tally.conversations), f"{tally.turns:,}")
    for name, count in tally.steps.items():
        rows = _change(count.rows_before, count.rows_after)
        turns = _change(count.turns_before, count.turns_after)
        table.add_row(name, rows, turns, f"{count.turns_changed:,}" if count.turns_changed else "")
    out.print(table)
    reasons = tally.left_out()
    for step, cost, reason in reasons[:_REASONS]:
        out.print(f"left out {cost:,} {'row' if cost == 1 else 'rows'}, {step}: {reason}", markup=False, soft_wrap=True)
    if len(reasons) > _REASONS:
        rest = sum(cost for _, cost, _ in reasons[_REASONS:])
        out.print(f"left out {rest:,} rows for {len(reasons) - _REASONS} other reasons")
    if tally.steps and not list(tally.steps.values())[-1].rows_after:
        out.print("nothing is left: the table says which step took the rows; loosen it by its flag or in the recipe")
    out.print(f"{path}; the whole table: {path}.report.md", markup=False, soft_wrap=True)


_CLEANING = ("rows", "turns", "changed")
_REASONS = 12
"""Reasons that are listed; the report has all."""


def _change(before: int, after: int) -> str:
    return f"{after:,}" if before == after else f"{before:,} → {after:,}"


def print_mixture(mixed: MixResult) -> None:
    """A row a dataset: how many conversations went where; then what was left out."""
    total = mixed.train.total()
    rows = [
        (name, f"{mixed.read[name]:,}", f"{mixed.train[name]:,}", f"{mixed.train[name] / total:.1%}",
         f"{mixed.validation[name]:,}")
        for name in mixed.read
    ]  # fmt: skip
    print_rows("mixture", ("dataset", "conversations", "train", "share", "validation"), rows)
    for reason, count in mixed.loaded.refused.counts.most_common():
        say(f"left out {count} rows: {reason} (first: {mixed.loaded.refused.examples[reason]})")


def print_datasets(entries: Sequence[Dataset]) -> None:
    """The catalogue, with the labels of the Open-ChatGPT collection."""
    columns = (
        Column("name", no_wrap=True),
        Column("rows", justify="right"),
        "lang",
        "task",
        "by",
        Column("format", overflow="fold"),
    )
    table = Table(*columns, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for entry in entries:
        size = "" if entry.size is None else f"{entry.size:,}"
        table.add_row(entry.name, size, entry.language, entry.task, entry.generation, entry.format)
    out.print(table)
    out.print(f"{len(entries)} datasets. MT many tasks, TS one task; HG people, SI models, MIX both, COL a collection.")


def print_dataset(entry: Dataset, path: Path | None) -> None:
    """One entry, and where it would be read from."""
    table = Table(show_header=False, box=None)
    found = str(path) if path else f"hub: {entry.hub}" if entry.hub else f"not here; get it from {entry.source}"
    for name, value in {**entry.model_dump(exclude_defaults=True, exclude={"file"}), "read from": found}.items():
        text = ", ".join(value) if isinstance(value, tuple) else f"{value:,}" if name == "size" else str(value)
        table.add_row(name.replace("_", " "), Text(text))
    out.print(table)


def print_formats(formats: Iterable[Format]) -> None:
    """Source schemas, their keys, and whether their converter met real rows."""
    table = Table(Column("format", no_wrap=True), "reads; the keys of a row", box=SIMPLE, pad_edge=False)
    for format in formats:
        tried = "" if format.tried else " (not tried on real rows)"
        keys = Text(f"\n{', '.join(sorted(format.keys))}", style="dim")
        table.add_row(format.name, Text(format.title + tried).append(keys))
    out.print(table)
