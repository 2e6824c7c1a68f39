"""One run as a SQLite file: what was planned, said, rejected and why each conversation ended.

Everything that waits when the writer is free goes into one transaction (WAL, synchronous=FULL), so the price of a flush
to disk is shared by all conversations in flight; `commit` returns once its entry is on disk. Rows are handed to SQLite
on the event loop, which takes microseconds; only the flush is waited for in a thread. Doing both in the thread was
tried: each row then waited for the interpreter lock, and runs took half as long again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from selfplay.chat.conversation import Conversation, Turn
from selfplay.chat.speakers import USER_ENDED, Usage
from selfplay.errors import StoreError
from selfplay.files import try_lock
from selfplay.store.records import ConversationSpec, ForkPoint, PendingConversation, Totals, TurnCommit
from selfplay.store.schema import migrate

DATABASE = "run.db"
_FACT = "INSERT OR REPLACE INTO run VALUES (?, ?)"
_SPEC_COLUMNS = "number, id, seed, opening, way, user_context, assistant_context, plan, details, parent"
_SPEC = f"INSERT INTO conversations ({_SPEC_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_END = "UPDATE conversations SET ended = ?, prompt_tokens = ?, cached_tokens = ?, sampled_tokens = ? WHERE number = ?"
_UNFINISHED = f"""
SELECT {_SPEC_COLUMNS}, EXISTS (SELECT 1 FROM turns WHERE conversation = c.number)
FROM conversations c WHERE ended IS NULL AND number > ? ORDER BY number LIMIT ?
"""
_PAGE = 500
"""Conversations read at once."""
_TURNS = "SELECT role, content, origin, token_ids FROM turns WHERE conversation = ? ORDER BY number"
# What a last step without a turn took stands with the conversation; it was the side's whose turn it would have been.
_USAGE = """
SELECT role, TOTAL(prompt_tokens), TOTAL(cached_tokens), TOTAL(sampled_tokens) FROM (
    SELECT role, prompt_tokens, cached_tokens, sampled_tokens FROM turns
    UNION ALL
    SELECT CASE (SELECT role FROM turns WHERE conversation = c.number ORDER BY number DESC LIMIT 1)
        WHEN 'user' THEN 'assistant' ELSE 'user' END, prompt_tokens, cached_tokens, sampled_tokens
    FROM conversations c WHERE prompt_tokens > 0
) WHERE role <> 'system' GROUP BY role
"""
_NOTHING = Usage()
_INSERT_TURN = "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class RunReader:
    """Reads a run; open beside a writer at any time."""

    def __init__(self, folder: Path) -> None:
        """Open the run in `folder`.

        Raises:
            StoreError: there is none, or it is damaged or of a newer version.
        """
        self.folder = folder
        if not is_run(folder):
            raise StoreError(
                f"{folder}: holds no run ({DATABASE} is missing); give the folder `selfplay generate` named"
            )
        self._database = connect(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def facts(self) -> dict[str, Any]:
        """What the run was made with: its configuration and models."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM run")}

    def conversations(self) -> Iterator[Conversation]:
        """Finished conversations in the order of the plan, those that failed included."""
        rows = self._rows("SELECT number, id, seed, ended FROM conversations WHERE ended IS NOT NULL ORDER BY number")
        for number, id, seed, ended in rows:
            meta = {"seed": seed, "number": number}
            yield Conversation(id, self._turns(number), ended == USER_ENDED, ended, meta=meta)

    def conversation(self, id: str) -> Conversation:
        """One conversation, finished or not.

        Raises:
            StoreError: the run has no such id.
        """
        row = next(self._rows("SELECT number, seed, ended FROM conversations WHERE id = ?", (id,)), None)
        if row is None:
            first = [found for (found,) in self._rows("SELECT id FROM conversations ORDER BY number LIMIT 3")]
            raise StoreError(f"{self.folder}: no conversation {id!r}; ids look like {', '.join(first)}")
        number, seed, ended = row
        meta = {"seed": seed, "number": number}
        return Conversation(id, self._turns(number), ended == USER_ENDED, ended, meta=meta)

    def counts(self) -> tuple[int, int]:
        """Conversations planned, and how many of them have ended."""
        ((planned, ended),) = self._rows("SELECT COUNT(*), COUNT(ended) FROM conversations")
        return planned, ended

    def unfinished(self) -> Iterator[PendingConversation]:
        """Conversations without a reason, in the order of the plan.

        Read a page at a time, each in a transaction of its own: a run of any length fits in memory, and a reader that
        stays open would keep the writer's log from being folded in.
        """
        last = -1
        while page := list(self._rows(_UNFINISHED, (last, _PAGE))):
            for *columns, begun in page:
                spec = _spec(columns)
                yield PendingConversation(spec, self._turns(spec.number) if begun else ())
            last = page[-1][0]

    def totals(self) -> Totals:
        """Counts over the whole run."""
        reasons: Counter[str | None] = Counter()
        for ended, count in self._rows("SELECT ended, COUNT(*) FROM conversations GROUP BY ended"):
            reasons[ended] = count
        ((turns, cut),) = self._rows("SELECT COUNT(*), TOTAL(cut) FROM turns")
        usage = {role: Usage(*map(int, counts)) for role, *counts in self._rows(_USAGE)}
        rejected = Counter(dict(self._rows("SELECT reason, SUM(count) FROM rejections GROUP BY reason")))
        return Totals(reasons, turns, int(cut), usage, rejected)

    def _turns(self, number: int) -> tuple[Turn, ...]:
        rows = self._rows(_TURNS, (number,))
        return tuple(
            Turn(role, content, origin, tuple(json.loads(ids)) if ids else None) for role, content, origin, ids in rows
        )

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a query; a file that is damaged says so."""
        try:
            yield from self._database.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.folder / DATABASE}: damaged or not readable ({error}); what can be saved comes out with "
                f"`sqlite3 {DATABASE} .recover`, else restore it from a copy"
            ) from error


class RunStore(RunReader):
    """A run open for writing. One process at a time; use as an async context manager around the engine."""

    def __init__(self, folder: Path, lock: IO[Any] | None = None) -> None:
        """Lock and open the run in `folder`; see `create` for a new one.

        Args:
            lock: the folder's lock, where the caller already holds it.
        """
        self._lock = lock or _lock(folder)
        try:
            super().__init__(folder)
            self._check()
        except StoreError:
            self._lock.close()
            raise
        self._waiting: list[tuple[TurnCommit, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, Any], specs: Iterable[ConversationSpec]) -> RunStore:
        """Start a run: everything that will be said is planned before the first word.

        Raises:
            StoreError: the folder already holds a run, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
        lock = _lock(folder)
        if is_run(folder):
            lock.close()
            raise StoreError(f"{folder}: already holds a run; finish it with --resume or choose another --out")
        # Built beside and renamed, so that a run either exists with its whole plan or not at all.
        building = folder / f"{DATABASE}.new"
        try:
            building.unlink(missing_ok=True)
            with closing(sqlite3.connect(building)) as database:
                migrate(database)
                with database:
                    database.executemany(_FACT, [(key, json.dumps(value)) for key, value in facts.items()])
                    database.executemany(_SPEC, map(_spec_row, specs))
            building.rename(folder / DATABASE)
        except (OSError, sqlite3.Error) as error:
            lock.close()
            raise StoreError(f"{folder}: cannot be written ({error}); choose another --out") from error
        return cls(folder, lock)

    def append(self, facts: Mapping[str, Any], specs: Iterable[ConversationSpec]) -> None:
        """Plan further conversations, all or none. `facts` take the place of those that have the same key.

        Raises:
            StoreError: cannot be written.
        """
        try:
            with self._database as database:
                database.executemany(_FACT, [(key, json.dumps(value)) for key, value in facts.items()])
                database.executemany(_SPEC, map(_spec_row, specs))
        except sqlite3.Error as error:
            raise StoreError(f"{self.folder}: cannot be written ({error}); nothing was appended") from error

    async def commit(self, entry: TurnCommit) -> None:
        """Write an entry and return once it is on disk.

        Raises:
            StoreError: it could not be written (full disk, lost folder).
        """
        if self._writer is None or self._writer.done():
            raise StoreError(f"{self.folder}: the writer is not running; what was committed before stays readable")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        self._wake.set()
        await future

    async def __aenter__(self) -> RunStore:
        """Start the writer."""
        self._writing = connect(self.folder)
        self._closing = False
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits and stop the writer."""
        self._closing = True
        self._wake.set()
        assert self._writer is not None
        await self._writer

    def close(self) -> None:
        """Close the file and release the run."""
        super().close()
        self._lock.close()

    def _check(self) -> None:
        """Refuse to write on into a damaged file."""
        found = [problem for (problem,) in self._rows("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            self._database.close()
            raise StoreError(f"{self.folder / DATABASE}: damaged ({found[0]}); restore it from a copy")

    async def _write(self) -> None:
        """Write groups until the store closes. What goes wrong with one is told to those who wait for it."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "store") as flusher, closing(self._writing):
            while self._waiting or not self._closing:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                group, self._waiting = self._waiting, []
                error: StoreError | None = None
                try:
                    for entry, _ in group:
                        _insert(self._writing, entry)
                    await loop.run_in_executor(flusher, self._writing.commit)
                except Exception as cause:  # a waiting conversation must never be left waiting
                    with suppress(sqlite3.Error):
                        self._writing.rollback()
                    error = StoreError(
                        f"{self.folder}: cannot write ({cause}); what was committed before stays readable"
                    )
                _resolve([future for _, future in group], error)


def connect(folder: Path) -> sqlite3.Connection:
    """Open a run. In a folder that cannot be written it is opened for reading only, without a trace.

    Raises:
        StoreError: no run that can be opened.
    """
    writable = all(os.access(path, os.W_OK, effective_ids=True) for path in (folder, folder / DATABASE))
    log = folder / f"{DATABASE}-wal"
    mode = "mode=rw" if writable else "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    # One thread uses a connection at a time; the store's own discipline replaces sqlite3's check.
    address = f"file:{quote(str(folder / DATABASE))}?{mode}"
    try:
        database = sqlite3.connect(address, uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(f"{folder / DATABASE}: cannot be opened ({error})") from error
    try:
        if writable:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
        migrate(database, writable)
    except sqlite3.DatabaseError as error:
        database.close()
        raise StoreError(f"{folder / DATABASE}: not a readable run ({error}); restore it from a copy") from error
    return database


def _lock(folder: Path) -> IO[Any]:
    try:
        handle = try_lock(folder / "lock")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); is it a run folder of yours?") from error
    if handle is None:
        raise StoreError(f"{folder}: another process is writing this run; wait for it or stop it")
    return handle


def _spec_row(spec: ConversationSpec) -> tuple[Any, ...]:
    opening = [{"role": turn.role, "content": turn.content, "origin": turn.origin} for turn in spec.opening]
    structured = (None if value is None else json.dumps(value) for value in (spec.plan, spec.details, spec.parent))
    told = (spec.way, spec.user_context, spec.assistant_context)
    return (spec.number, spec.id, spec.seed, json.dumps(opening), *told, *structured)


def _spec(columns: Sequence[Any]) -> ConversationSpec:
    number, id, seed, opening, way, user_context, assistant_context, *structured = columns
    plan, details, parent = (None if value is None else json.loads(value) for value in structured)
    turns = tuple(Turn(**turn) for turn in json.loads(opening))
    fork = None if parent is None else ForkPoint(*parent)
    return ConversationSpec(number, id, seed, turns, way, user_context, assistant_context, plan, details, fork)


def _insert(database: sqlite3.Connection, entry: TurnCommit) -> None:
    last = len(entry.turns) - 1
    spoken = last >= 0 and entry.turns[last].origin != "fixed"  # else the step ended before its side said anything
    for offset, turn in enumerate(entry.turns):
        usage = entry.usage if spoken and offset == last else _NOTHING
        ids = None if turn.token_ids is None else str(list(turn.token_ids))  # JSON
        database.execute(
            _INSERT_TURN,
            (
                entry.conversation, entry.at + offset, turn.role, turn.origin, turn.content, ids,
                entry.cut and offset == last, usage.prompt_tokens, usage.cached_tokens, usage.sampled_tokens,
            ),
        )  # fmt: skip
    if entry.rejected:
        at = entry.at + (last if spoken else last + 1)
        database.executemany(
            "INSERT INTO rejections VALUES (?, ?, ?, ?)",
            [(entry.conversation, at, reason, count) for reason, count in entry.rejected.items()],
        )
    if entry.ended is not None:
        usage = _NOTHING if spoken else entry.usage
        counts = (usage.prompt_tokens, usage.cached_tokens, usage.sampled_tokens)
        database.execute(_END, (entry.ended, *counts, entry.conversation))


def _resolve(futures: list[asyncio.Future[None]], error: StoreError | None) -> None:
    for future in futures:
        if future.done():  # its conversation was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a run."""
    return (Path(path) / DATABASE).exists()


def open_run(folder: str | Path) -> RunReader:
    """A run for reading; use `with`, which closes it.

    Raises:
        StoreError: there is none.
    """
    return RunReader(Path(folder))
