"""What `selfplay bench` takes and shows in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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

from selfplay.console.generate import err, out, print_rows
from selfplay.errors import ConfigError

if TYPE_CHECKING:
    from bench.assistant.report import Report
    from bench.corpus.describe import Described
    from bench.nano.sheet import NanoScores
    from bench.simulator.scorecard import Scorecard


def named(given: Sequence[str]) -> dict[str, str]:
    """NAME=PATH texts by name; without a name the last part of the path is it.

    Raises:
        ConfigError: a name given twice, or a name alone.
    """
    rows: dict[str, str] = {}
    for text in given:
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


def set_named(command: str, file: str | None, own: str) -> str:
    """The question set of a command: its own name, or for sets of one's own the file given.

    Raises:
        ConfigError: a file where none is taken, or none where one is.
    """
    if command == own and file is None:
        raise ConfigError(f"bench {own} needs the YAML file of a question set")
    if command != own and file is not None:
        raise ConfigError(f"bench {command} takes no file; for {file} use `selfplay bench {own} {file}`")
    return file or command


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


def print_scorecard(card: Scorecard) -> None:
    """A table a group of metrics, then what was left out and why."""
    from bench.nano.report import reasons_left_out, scorecard_tables

    for table in scorecard_tables(card, brief=len(card.rows) > 2):
        print_rows(*table)
    if card.left_out:
        print_rows("left out", ("metric and reason",), [(line,) for line in reasons_left_out(card)])


def print_nano(scores: NanoScores) -> None:
    """A table a human set, and free self-play beside people."""
    from bench.nano.sheet import tables

    for table in tables(scores.sheets, scores.free):
        print_rows(*table)


def print_corpora(corpora: Sequence[Described], notes: Sequence[str]) -> None:
    """The comparison table, and what it stands on."""
    from bench.nano.report import corpora_table

    print_rows(*corpora_table(corpora, brief=len(corpora) > 2))
    for note in notes:
        out.print(note, style="dim", markup=False, soft_wrap=True)


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
