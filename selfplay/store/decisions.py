"""Decisions of curations about a run's conversations, kept in the run with the reason of each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from selfplay.errors import StoreError
from selfplay.store.store import DATABASE, connect


class Decision(NamedTuple):
    """What a curation made of a conversation; without a step it was kept."""

    curation: str
    """The file that the curation wrote."""
    step: str | None
    reason: str | None

    def __str__(self) -> str:
        return (
            f"kept in {self.curation}"
            if self.step is None
            else f"left out of {self.curation}: {self.step}, {self.reason}"
        )


def keep_decisions(folder: Path, curation: str, verdicts: Iterable[tuple[str, str | None, str | None]]) -> None:
    """Write a curation's verdicts into a run, in place of those of an earlier one of that name.

    Args:
        verdicts: id of the conversation, step and reason that left it out, both None where it was kept.

    Raises:
        StoreError: the run cannot be written.
    """
    with closing(connect(folder)) as database:
        try:
            with database:
                database.execute("DELETE FROM decisions WHERE curation = ?", (curation,))
                database.executemany(
                    "INSERT INTO decisions SELECT ?, number, ?, ? FROM conversations WHERE id = ?",
                    ((curation, step, reason, id) for id, step, reason in verdicts),
                )
        except sqlite3.Error as error:
            raise StoreError(f"{folder / DATABASE}: decisions cannot be written ({error})") from error


def decisions_on(folder: Path, id: str) -> list[Decision]:
    """What curations made of one conversation; a run that nobody could write to since it was made has none.

    Raises:
        StoreError: there is no such run.
    """
    with closing(connect(folder)) as database:
        # A run that cannot be written keeps the tables it was made with: `verdicts` is the older name.
        tables = "SELECT name FROM sqlite_master WHERE name IN ('decisions', 'verdicts')"
        if (table := database.execute(tables).fetchone()) is None:
            return []
        query = f"""
        SELECT curation, step, reason FROM {table[0]} JOIN conversations ON conversation = conversations.number
        WHERE id = ? ORDER BY curation
        """
        return [Decision(*row) for row in database.execute(query, (id,))]
