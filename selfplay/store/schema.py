"""The store's tables and how older files are brought up to date.

`PRAGMA user_version` counts the migrations a file has seen. A migration is never edited once released: add the next.
"""

from __future__ import annotations

import sqlite3

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
        try:
            script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            database.executescript(script)
        except sqlite3.OperationalError:
            if database.in_transaction:
                database.rollback()
            (now,) = database.execute("PRAGMA user_version").fetchone()
            if now <= number:  # else another process brought it up at the same moment
                raise
