"""Cleaning from sources to a file: read, clean on all cores, compare, write. Memory does not grow with the rows.

Batches of raw rows go to worker processes and come back in order as finished lines, so the result does not depend on
the number of workers. Lines wait in a folder beside the output until the duplicates among them are known; then those
that stay are written, and the file takes its name in one step. An interrupted run leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np

from selfplay.chat.conversation import Conversation
from selfplay.data.catalogue import Source
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.duplicates import Bools, ExactDuplicates, NearDuplicates, digest, signatures
from selfplay.data.cleaning.steps import Step, clean, steps_of
from selfplay.data.cleaning.tally import Count, Tally
from selfplay.data.formats import format_named, recognise_any
from selfplay.data.reading import Batch
from selfplay.data.rows import parquet_schema, row_of
from selfplay.errors import BadRow, DataError, InvalidConversation
from selfplay.writing import check_name, json_line, write_lines

Progress = Callable[[int, "float | None"], None]
"""Called with source rows read so far and the share of the sources they make, where known."""
_AHEAD = 3
"""Batches per worker that are read before their turn."""
_HELD = 64
"""Batches without a readable row before a source is given up."""
_SMALL = 4
"""Sources of fewer batches are cleaned in this process: starting workers would take longer."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A batch and how its rows read."""

    source: str
    format: str
    batch: Batch
    share: float | None


@dataclass(frozen=True, slots=True)
class _Done:
    """A cleaned batch: lines, and what duplicates are told by. `turns` counts the turns of each line."""

    lines: list[bytes]
    turns: list[int]
    digests: bytes
    signatures: bytes
    tally: Tally
    share: float | None


def clean_sources(
    sources: Sequence[Source],
    out: Path,
    config: CleanConfig,
    *,
    format: str | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Tally:
    """Clean sources into one messages file, with its table beside it.

    Args:
        format: overrides the formats recognised.
        workers: processes; None: one per core this process may use.

    Raises:
        ConfigError: the output's name cannot be written, or the format is unknown.
        DataError: a source cannot be read or recognised, or (strict) a row is bad.
        ModelError: the tokenizer that measures pieces cannot be read.
    """
    check_name(out)
    steps_of(config)  # complains before anything is read
    tally = Tally(steps={name: Count() for name in _names(config)})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        with closing(_Run(folder, config, tally)) as run:
            for done in _cleaned(_tasks(sources, format), config, workers or available_cores()):
                run.take(done)
                if on_progress is not None:
                    on_progress(tally.rows, done.share)
            kept = run.decide()
        if not tally.conversations:
            raise DataError(f"no row of {tally.rows} became a conversation: {tally.refused.summary()}")
        with (folder / "lines").open("rb") as written:
            write_lines((line for line, stays in zip(written, kept, strict=True) if stays), out, parquet_schema())
        tally.save(out, {"sources": [source.name for source in sources], "config": config.model_dump(mode="json")})
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Run:
    """What is known of the rows written so far."""

    def __init__(self, folder: Path, config: CleanConfig, tally: Tally) -> None:
        self._lines = (folder / "lines").open("wb")
        self._tally = tally
        self._turns: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []
        self._exact = ExactDuplicates(folder) if config.duplicates else None
        self._near = None if config.near_duplicates is None else NearDuplicates(folder, config.near_duplicates)

    def take(self, done: _Done) -> None:
        self._lines.writelines(done.lines)
        self._turns.append(np.asarray(done.turns, np.uint32))
        self._tally.add(done.tally)
        if self._exact is not None:
            self._exact.add(done.digests)
        if self._near is not None:
            self._near.add(done.signatures)

    def close(self) -> None:
        """Nothing more will come."""
        for open_file in (self._lines, self._exact, self._near):
            if open_file is not None:
                open_file.close()

    def decide(self) -> Bools:
        """Which rows stay."""
        self._lines.close()
        turns = np.concatenate([*self._turns, np.empty(0, np.uint32)])
        kept = np.ones(len(turns), bool)
        for name, search in ((_EXACT, self._exact), (_NEAR, self._near)):
            if search is not None:
                count = self._tally.steps[name]
                count.rows_before, count.turns_before = int(kept.sum()), int(turns[kept].sum())
                if dropped := search.drop(kept):
                    count.reasons["repeats an earlier one"] = dropped
                count.rows_after, count.turns_after = int(kept.sum()), int(turns[kept].sum())
        return kept


_EXACT = "exact duplicates"
_NEAR = "near duplicates"


def _names(config: CleanConfig) -> list[str]:
    names = [step.name for step in steps_of(config)]
    return [*names, *[_EXACT] * config.duplicates, *[_NEAR] * (config.near_duplicates is not None)]


def _tasks(sources: Sequence[Source], format: str | None) -> Iterator[_Task]:
    for number, source in enumerate(sources):
        known = format or source.format
        name, batches = (known, source.batches()) if known else _recognised(source)
        for batch in batches:
            share = None if batch.share is None else (number + batch.share) / len(sources)
            yield _Task(source.name, format_named(name).name, batch, share)


def _recognised(source: Source) -> tuple[str, Iterator[Batch]]:
    """The format of a source by the first of its rows that can be read, and all of its batches."""
    batches = source.batches()
    held: list[Batch] = []
    for batch in islice(batches, _HELD):
        held.append(batch)
        rows = [row.data for row in batch.rows() if row.data is not None]
        if rows:
            return recognise_any(rows, source.name).name, chain(held, batches)
    errors = (f"{row.place}: {row.error}" for batch in held for row in batch.rows())
    raise DataError(f"{source.name}: no row that can be read; the first: {next(errors, 'there are no rows')}")


def _cleaned(tasks: Iterator[_Task], config: CleanConfig, workers: int) -> Iterator[_Done]:
    """Finished batches in the order of their tasks."""
    first = list(islice(tasks, _SMALL))
    if workers == 1 or len(first) < _SMALL:
        _set_up(config)
        yield from map(_clean_batch, chain(first, tasks))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_set_up_worker, initargs=(config,))
    waiting: deque[Future[_Done]] = deque()
    try:
        for task in chain(first, tasks):
            with _uninterrupted():
                waiting.append(pool.submit(_clean_batch, task))
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


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started in here inherit that SIGINT is blocked: Ctrl-C is for the one that asked, which stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_config = CleanConfig()
_steps: list[Step] = []


def _set_up(config: CleanConfig) -> None:
    """What every batch of this process needs."""
    global _config, _steps
    _config, _steps = config, steps_of(config)


def _set_up_worker(config: CleanConfig) -> None:
    """The workers are the parallelism; they go when the process that asked is gone."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _set_up(config)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _clean_batch(task: _Task) -> _Done:
    tally = Tally(steps={step.name: Count() for step in _steps})
    kept: list[Conversation] = []
    lines: list[bytes] = []
    for place, conversation in _converted(task, tally):
        for done in clean(conversation, _steps, tally):
            try:
                lines.append(json_line(row_of(done)))
            except RecursionError:
                tally.refused.add(place, BadRow("nested too deeply"))
            else:
                kept.append(done)
    texts = ["\n".join(turn.content for turn in conversation.turns) for conversation in kept]
    return _Done(
        lines,
        [len(conversation.turns) for conversation in kept],
        b"".join(map(digest, kept)) if _config.duplicates else b"",
        b"" if _config.near_duplicates is None else signatures(texts).tobytes(),
        tally,
        task.share,
    )


def _converted(task: _Task, tally: Tally) -> Iterator[tuple[str, Conversation]]:
    """Conversations, each with the place of its row."""
    format = format_named(task.format)
    for row in task.batch.rows():
        tally.rows += 1
        try:
            conversations = list(format.convert(row.value()))
        except (BadRow, InvalidConversation) as error:
            if _config.strict:
                raise DataError(f"{row.place}: {error}") from error
            tally.refused.add(row.place, error)
            continue
        for conversation in conversations:
            tally.conversations += 1
            tally.turns += len(conversation.turns)
            yield row.place, replace(conversation, meta={"dataset": task.source, **conversation.meta})
