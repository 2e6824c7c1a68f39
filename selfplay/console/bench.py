"""What `selfplay bench` prints: progress bars, scorecards, corpora, standings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from selfplay.console.terminal import err, out, print_rows

if TYPE_CHECKING:
    from pathlib import Path

    from bench.assistant.report import Report
    from bench.corpus.run import Corpora
    from bench.nano.sheet import NanoScores
    from bench.simulator.scorecard import Scorecard


@contextmanager
def corpus_progress() -> Iterator[Callable[[str], Callable[[int, float | None], None]]]:
    """A bar a corpus: call it with the name, and what comes back with the conversations read and their share."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[read]:,} dialogues · {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as progress:

        def begin(name: str) -> Callable[[int, float | None], None]:
            task = progress.add_task(escape(name), total=1.0, read=0, rate=0.0)
            started = time.monotonic()

            def update(read: int, share: float | None) -> None:
                rate = read / max(1e-3, time.monotonic() - started)
                total = None if share is None else 1.0
                progress.update(task, total=total, completed=share or 0.0, read=read, rate=rate)

            return update

        yield begin


def print_scorecard(card: Scorecard, folder: Path) -> None:
    """A table a group of metrics, then what was left out and why."""
    from bench.simulator.report import reasons_left_out, scorecard_tables

    for table in scorecard_tables(card, brief=len(card.rows) > 2):
        print_rows(*table)
    if card.left_out:
        print_rows("left out", ("metric and reason",), [(line,) for line in reasons_left_out(card)])
    out.print(f"scorecard: {folder}/scorecard.md, {folder}/panel.png", markup=False, soft_wrap=True)


def print_nano(scores: NanoScores, folder: Path) -> None:
    """A table a human set, and free self-play beside people."""
    from bench.nano.sheet import tables

    for table in tables(scores.sheets, scores.free):
        print_rows(*table)
    out.print(f"scores: {folder}/scores.md", markup=False, soft_wrap=True)


def print_corpora(corpora: Corpora, folder: Path | None) -> None:
    """The comparison table, and what it stands on."""
    from bench.corpus.report import corpora_table

    print_rows(*corpora_table(corpora.found, brief=len(corpora.found) > 2))
    for note in corpora.notes:
        out.print(note, style="dim", markup=False, soft_wrap=True)
    if folder is not None:
        out.print(f"corpora: {folder}/corpus.md", markup=False, soft_wrap=True)


@contextmanager
def judging_progress() -> Iterator[Callable[[str, int, int], Callable[[], None]]]:
    """A bar for whatever begins: call it with its name, how much there is and how much is done; then with each step."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:

        def begin(what: str, total: int, done: int) -> Callable[[], None]:
            task = progress.add_task(escape(what), total=total, completed=done)
            return lambda: progress.advance(task)

        yield begin


def print_judged(reports: Sequence[Report]) -> None:
    """Standings and what stands behind them."""
    from bench.assistant.report import notes, tables

    for report in reports:
        for table in tables(report, brief=True):
            print_rows(*table)
        for line in notes(report):
            out.print(line, style="dim", markup=False, soft_wrap=True)
        out.print(f"report: {report.file}", markup=False, soft_wrap=True)
