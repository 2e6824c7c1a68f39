"""The store's tables and how older files are brought up to date.

`PRAGMA user_version` counts the migrations a file has seen. A migration is never edited once released: add the next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from selfplay.errors import StoreError

MIGRATIONS = (
    """
    CREATE TABLE run (
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL              -- JSON
    );
    CREATE TABLE conversations (
        number  INTEGER PRIMARY KEY,     -- position in the plan, from 0
        id      TEXT NOT NULL UNIQUE,
        seed    INTEGER NOT NULL,
        opening TEXT NOT NULL,           -- JSON: how round 1 starts
        ended   TEXT,                    -- reason; NULL while unfinished
        prompt_tokens  INTEGER NOT NULL DEFAULT 0,  -- of a last step that ended without a turn
        cached_tokens  INTEGER NOT NULL DEFAULT 0,
        sampled_tokens INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE turns (
        conversation   INTEGER NOT NULL REFERENCES conversations (number),
        number         INTEGER NOT NULL, -- from 0
        role           TEXT NOT NULL,
        origin         TEXT NOT NULL,
        content        TEXT NOT NULL,
        token_ids      TEXT,             -- JSON: ids the model sampled, end-of-turn token left out
        cut            INTEGER NOT NULL, -- 1: the token limit ended the turn
        prompt_tokens  INTEGER NOT NULL,
        cached_tokens  INTEGER NOT NULL,
        sampled_tokens INTEGER NOT NULL,
        PRIMARY KEY (conversation, number)
    ) WITHOUT ROWID;
    CREATE TABLE rejections (
        conversation INTEGER NOT NULL REFERENCES conversations (number),
        turn         INTEGER NOT NULL,   -- the turn that was resampled
        reason       TEXT NOT NULL,
        count        INTEGER NOT NULL,
        PRIMARY KEY (conversation, turn, reason)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE verdicts (
        curation     TEXT NOT NULL,      -- the file a curation wrote
        conversation INTEGER NOT NULL REFERENCES conversations (number),
        step         TEXT,               -- what left it out; NULL: it was kept
        reason       TEXT,
        PRIMARY KEY (curation, conversation)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE conversations ADD COLUMN way TEXT NOT NULL DEFAULT 'usergpt';  -- how it is made
    ALTER TABLE conversations ADD COLUMN user_context TEXT;       -- shown to the user's side alone
    ALTER TABLE conversations ADD COLUMN assistant_context TEXT;  -- shown to the assistant's side alone
    ALTER TABLE conversations ADD COLUMN plan TEXT;               -- JSON: rounds, words, styles, spans
    ALTER TABLE conversations ADD COLUMN details TEXT;            -- JSON: prompt hash, sector, node
    ALTER TABLE conversations ADD COLUMN parent TEXT;             -- JSON: [run, conversation, turn] of a fork
    ALTER TABLE verdicts RENAME TO decisions;
    """,
)


def migrate(database: sqlite3.Connection, writable: bool = True) -> None:
    """Bring an open file up to the newest version, where it can be written; readers bear what is not there yet.

    Raises:
        StoreError: the file was written by a newer version of this package.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the run was written by a newer version (store version {version}, this one knows {len(MIGRATIONS)}); "
            "upgrade the package to open it"
        )
    for number in range(version, len(MIGRATIONS) if writable else version):
        database.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have brought the file up since the version was read. A migration that runs twice can
            # succeed (a table it makes may have been renamed since), so the version is looked at again under the lock.
            (now,) = database.execute("PRAGMA user_version").fetchone()
            if now == number:
                for statement in _statements(MIGRATIONS[number]):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number + 1}")
            database.commit()
        except sqlite3.Error:
            database.rollback()
            raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would end the transaction they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
