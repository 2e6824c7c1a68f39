"""Batches through the steps on all cores, in order. What one process does with a batch, and who hands batches out.

The result does not depend on the number of workers: batches come back in the order they were read.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import get_context, parent_process

from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.duplicates import signatures, text_digest
from selfplay.data.cleaning.report import Count, Tally
from selfplay.data.cleaning.steps import clean, steps_of
from selfplay.data.formats import format_named
from selfplay.data.raw_rows import Batch
from selfplay.data.rows import row_of
from selfplay.errors import BadRow, DataError, InvalidConversation
from selfplay.files import json_line

_AHEAD = 3
"""Batches per worker that are read before their turn."""
_SMALL = 4
"""Sources of fewer batches are cleaned in this process: starting workers would take longer."""


@dataclass(frozen=True, slots=True)
class Task:
    """A batch and how its rows read."""

    source: str
    format: str
    batch: Batch
    share: float | None


@dataclass(frozen=True, slots=True)
class Done:
    """A cleaned batch: lines, and what duplicates are told by. `turns` counts the turns of each line."""

    lines: list[bytes]
    turns: list[int]
    digests: bytes
    signatures: bytes
    tally: Tally
    share: float | None


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cleaned(tasks: Iterator[Task], config: CleanConfig, workers: int) -> Iterator[Done]:
    """Finished batches in the order of their tasks.

    Raises:
        DataError: (strict) a bad row, or a worker process died.
    """
    first = list(islice(tasks, _SMALL))
    if workers == 1 or len(first) < _SMALL:
        yield from map(Cleaner(config), chain(first, tasks))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_set_up_worker, initargs=(config,))
    waiting: deque[Future[Done]] = deque()
    try:
        for task in chain(first, tasks):
            with _uninterrupted():
                waiting.append(pool.submit(_work, task))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died: for lack of memory (try fewer --workers), or because the script that called this "
            'has no `if __name__ == "__main__":` around it'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class Cleaner:
    """The steps of a recipe, ready for batches."""

    def __init__(self, config: CleanConfig) -> None:
        self._config = config
        self._steps = steps_of(config)

    def __call__(self, task: Task) -> Done:
        """Clean a batch."""
        tally = Tally(steps={step.name: Count() for step in self._steps})
        kept: list[Conversation] = []
        lines: list[bytes] = []
        digests: list[bytes] = []
        for place, conversation in self._converted(task, tally):
            name = b""
            for done in clean(conversation, self._steps, tally):
                try:
                    lines.append(json_line(row_of(done)))
                except RecursionError:
                    tally.refused.add(place, BadRow("nested too deeply"))
                else:
                    kept.append(done)
                    name = text_digest(done, name)
                    digests.append(name)
        texts = ["\n".join(turn.content for turn in conversation.turns) for conversation in kept]
        return Done(
            lines,
            [len(conversation.turns) for conversation in kept],
            b"".join(digests) if self._config.duplicates else b"",
            b"" if self._config.near_duplicates is None else signatures(texts).tobytes(),
            tally,
            task.share,
        )

    def _converted(self, task: Task, tally: Tally) -> Iterator[tuple[str, Conversation]]:
        """Conversations, each with the place of its row."""
        format = format_named(task.format)
        for row in task.batch.rows():
            tally.rows += 1
            try:
                conversations = list(format.convert(row.value()))
            except (BadRow, InvalidConversation) as error:
                if self._config.strict:
                    raise DataError(f"{row.place}: {error}") from error
                tally.refused.add(row.place, error)
                continue
            for conversation in conversations:
                tally.conversations += 1
                tally.turns += len(conversation.turns)
                yield row.place, replace(conversation, meta={"dataset": task.source, **conversation.meta})


_cleaner: Cleaner | None = None
"""In a worker process: what every batch needs."""


def _set_up_worker(config: CleanConfig) -> None:
    """The workers are the parallelism; they go when the process that asked is gone."""
    global _cleaner
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _cleaner = Cleaner(config)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Task) -> Done:
    assert _cleaner is not None, "the pool sets its workers up before it gives them work"
    return _cleaner(task)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started in here inherit that SIGINT is blocked: Ctrl-C is for the one that asked, which stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
