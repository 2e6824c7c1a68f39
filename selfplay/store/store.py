"""One run as a SQLite file: what was planned, said, rejected and why each conversation ended.

The writer is a thread of its own. Everything that waits when it wakes goes into one transaction (WAL,
synchronous=FULL), so the price of a flush to disk is shared by all conversations in flight; `commit` returns once its
entry is on disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any, TextIO

from selfplay.chat.conversation import Conversation, Turn
from selfplay.chat.speakers import USER_ENDED, Usage
from selfplay.errors import StoreError
from selfplay.store.records import Entry, Plan, Totals, Unfinished
from selfplay.store.schema import migrate

DATABASE = "run.db"
_PLAN = "INSERT INTO conversations (number, id, seed, opening) VALUES (?, ?, ?, ?)"
_END = "UPDATE conversations SET ended = ?, prompt_tokens = ?, cached_tokens = ?, sampled_tokens = ? WHERE number = ?"
_TOTALS = """
SELECT TOTAL(prompt_tokens), TOTAL(cached_tokens), TOTAL(sampled_tokens) FROM (
    SELECT prompt_tokens, cached_tokens, sampled_tokens FROM turns
    UNION ALL SELECT prompt_tokens, cached_tokens, sampled_tokens FROM conversations
)
"""
_INSERT_TURN = "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class RunReader:
    """Reads a run; open beside a writer at any time."""

    def __init__(self, folder: Path) -> None:
        """Open the run in `folder`.

        Raises:
            StoreError: there is none, or it is damaged or of a newer version.
        """
        self.folder = folder
        if not (folder / DATABASE).exists():
            raise StoreError(
                f"{folder}: holds no run ({DATABASE} is missing); give the folder `selfplay generate` named"
            )
        self._database = _connect(folder)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def facts(self) -> dict[str, Any]:
        """What the run was made with: its configuration and models."""
        return {key: json.loads(value) for key, value in self._database.execute("SELECT key, value FROM run")}

    def conversations(self) -> Iterator[Conversation]:
        """Finished conversations in the order of the plan, those that failed included."""
        rows = self._database.execute(
            "SELECT number, id, seed, ended FROM conversations WHERE ended IS NOT NULL ORDER BY number"
        )
        for number, id, seed, ended in rows:
            meta = {"seed": seed, "number": number}
            yield Conversation(id, self._turns(number), ended == USER_ENDED, ended, meta)

    def conversation(self, id: str) -> Conversation:
        """One conversation, finished or not.

        Raises:
            StoreError: the run has no such id.
        """
        row = self._database.execute("SELECT number, seed, ended FROM conversations WHERE id = ?", (id,)).fetchone()
        if row is None:
            first = [
                found for (found,) in self._database.execute("SELECT id FROM conversations ORDER BY number LIMIT 3")
            ]
            raise StoreError(f"{self.folder}: no conversation {id!r}; ids look like {', '.join(first)}")
        number, seed, ended = row
        return Conversation(id, self._turns(number), ended == USER_ENDED, ended, {"seed": seed, "number": number})

    def unfinished(self) -> list[Unfinished]:
        """Conversations without a reason, in the order of the plan."""
        rows = self._database.execute(
            "SELECT number, id, seed, opening FROM conversations WHERE ended IS NULL ORDER BY number"
        ).fetchall()
        owed = []
        for number, id, seed, opening in rows:
            plan = Plan(number, id, seed, tuple(Turn(**turn) for turn in json.loads(opening)))
            owed.append(Unfinished(plan, self._turns(number)))
        return owed

    def totals(self) -> Totals:
        """Counts over the whole run."""
        reasons: Counter[str | None] = Counter()
        for ended, count in self._database.execute("SELECT ended, COUNT(*) FROM conversations GROUP BY ended"):
            reasons[ended] = count
        turns, cut = self._database.execute("SELECT COUNT(*), TOTAL(cut) FROM turns").fetchone()
        usage = Usage(*map(int, self._database.execute(_TOTALS).fetchone()))
        rejected = Counter(dict(self._database.execute("SELECT reason, SUM(count) FROM rejections GROUP BY reason")))
        return Totals(reasons, turns, int(cut), usage, rejected)

    def _turns(self, number: int) -> tuple[Turn, ...]:
        rows = self._database.execute(
            "SELECT role, content, origin, token_ids FROM turns WHERE conversation = ? ORDER BY number", (number,)
        )
        return tuple(
            Turn(role, content, origin, tuple(json.loads(ids)) if ids else None) for role, content, origin, ids in rows
        )


class RunStore(RunReader):
    """A run open for writing. One process at a time; use as an async context manager around the engine."""

    def __init__(self, folder: Path, lock: TextIO | None = None) -> None:
        """Lock and open the run in `folder`; see `create` for a new one.

        Args:
            lock: the folder's lock, where the caller already holds it.
        """
        self._lock = lock or _lock(folder)
        try:
            super().__init__(folder)
        except StoreError:
            self._lock.close()
            raise
        self._queue: queue.SimpleQueue[tuple[Entry, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, Any], plans: Iterable[Plan]) -> RunStore:
        """Start a run: everything that will be said is planned before the first word.

        Raises:
            StoreError: the folder already holds a run, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
        lock = _lock(folder)
        if (folder / DATABASE).exists():
            lock.close()
            raise StoreError(f"{folder}: already holds a run; finish it with --resume or choose another --out")
        # Built beside and renamed, so that a run either exists with its whole plan or not at all.
        building = folder / f"{DATABASE}.new"
        try:
            building.unlink(missing_ok=True)
            with closing(sqlite3.connect(building)) as database:
                migrate(database)
                with database:
                    database.executemany(
                        "INSERT INTO run VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()]
                    )
                    database.executemany(_PLAN, map(_plan_row, plans))
            building.rename(folder / DATABASE)
        except (OSError, sqlite3.Error) as error:
            lock.close()
            raise StoreError(f"{folder}: cannot be written ({error}); choose another --out") from error
        return cls(folder, lock)

    async def commit(self, entry: Entry) -> None:
        """Write an entry and return once it is on disk.

        Raises:
            StoreError: it could not be written (full disk, lost folder).
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((entry, future))
        await future

    async def __aenter__(self) -> RunStore:
        """Start the writer."""
        self._writing = _connect(self.folder)
        self._thread = threading.Thread(target=self._write, args=(asyncio.get_running_loop(),), name="store")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits and stop the writer."""
        self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def close(self) -> None:
        """Close the file and release the run."""
        super().close()
        self._lock.close()

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        """The writer's loop. Whatever goes wrong with a group is told to those who wait for it; the writer goes on."""
        while (group := self._next_group()) is not None:
            error: StoreError | None = None
            try:
                with self._writing:
                    for entry, _ in group:
                        _insert(self._writing, entry)
            except Exception as cause:  # a waiting conversation must never be left waiting
                error = StoreError(f"{self.folder}: cannot write ({cause}); what was committed before stays readable")
            loop.call_soon_threadsafe(_resolve, [future for _, future in group], error)
        self._writing.close()

    def _next_group(self) -> list[tuple[Entry, asyncio.Future[None]]] | None:
        """Everything that waits, at least one entry; None once the store stops."""
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while not self._queue.empty():
            following = self._queue.get()
            if following is None:
                self._queue.put(None)
                break
            group.append(following)
        return group


def _connect(folder: Path) -> sqlite3.Connection:
    # One thread uses a connection at a time; the store's own discipline replaces sqlite3's check.
    database = sqlite3.connect(folder / DATABASE, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        migrate(database)
    except sqlite3.DatabaseError as error:
        database.close()
        raise StoreError(f"{folder / DATABASE}: not a readable run ({error}); restore it from a copy") from error
    return database


def _lock(folder: Path) -> TextIO:
    try:
        handle = (folder / "lock").open("w")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); is it a run folder of yours?") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StoreError(f"{folder}: another process is writing this run; wait for it or stop it") from error
    return handle


def _plan_row(plan: Plan) -> tuple[int, str, int, str]:
    opening = [{"role": turn.role, "content": turn.content, "origin": turn.origin} for turn in plan.opening]
    return plan.number, plan.id, plan.seed, json.dumps(opening)


def _insert(database: sqlite3.Connection, entry: Entry) -> None:
    for offset, turn in enumerate(entry.turns):
        last = offset == len(entry.turns) - 1
        usage = entry.usage if last else Usage()
        ids = None if turn.token_ids is None else json.dumps(turn.token_ids)
        row = (entry.conversation, entry.at + offset, turn.role, turn.origin, turn.content, ids)
        database.execute(_INSERT_TURN, (*row, entry.cut and last, *astuple(usage)))
    if entry.rejected:
        at = entry.at + max(len(entry.turns) - 1, 0)
        database.executemany(
            "INSERT INTO rejections VALUES (?, ?, ?, ?)",
            [(entry.conversation, at, reason, count) for reason, count in entry.rejected.items()],
        )
    if entry.ended is not None:
        database.execute(_END, (entry.ended, *astuple(Usage() if entry.turns else entry.usage), entry.conversation))


def _resolve(futures: list[asyncio.Future[None]], error: StoreError | None) -> None:
    for future in futures:
        if future.done():  # its conversation was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
