"""Cleaning from sources to a file: read, clean on all cores, compare, write. Memory does not grow with the rows.

Cleaned lines wait in a folder beside the output until the duplicates among them are known; then those that stay are
written, and the file takes its name in one step. An interrupted run leaves nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import numpy as np

from selfplay.data.catalogue import Source, locate
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.duplicates import Bools, ExactDuplicates, NearDuplicates
from selfplay.data.cleaning.reasons import EXACT, NEAR, REPEATS, SIMILAR
from selfplay.data.cleaning.report import Count, Tally
from selfplay.data.cleaning.steps import steps_of
from selfplay.data.cleaning.workers import Done, Task, available_cores, cleaned
from selfplay.data.formats import format_named, recognise_any
from selfplay.data.raw_rows import Batch
from selfplay.data.rows import parquet_schema
from selfplay.errors import ConfigError, DataError
from selfplay.files import check_name, write_lines

Progress = Callable[[int, "float | None"], None]
"""Called with source rows read so far and the share of the sources they make, where known."""
_HELD = 64
"""Batches without a readable row before a source is given up."""


def clean(
    names: Sequence[str],
    out: str | Path,
    config: CleanConfig | None = None,
    *,
    format: str | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Tally:
    """Clean datasets into one `.jsonl` or `.parquet` file of messages, with the table of what each step did beside it.

    Args:
        names: catalogue names, files, run folders, or `organisation/name` on the hub.
        format: the source schema, where it is not recognised.
        workers: processes; None: one per core this process may use.
        on_progress: called with the rows read so far and the share of the sources they make.

    Raises:
        ConfigError: the output cannot have that name, or the format is unknown.
        DataError: a source cannot be read or recognised, or (strict) a row is bad.
        ModelError: the tokenizer that measures pieces cannot be read.
    """
    return _clean_sources(
        [locate(name) for name in names],
        Path(out),
        config or CleanConfig(),
        format=format,
        workers=workers,
        on_progress=on_progress,
    )


def _clean_sources(
    sources: Sequence[Source],
    out: Path,
    config: CleanConfig,
    *,
    format: str | None,
    workers: int | None,
    on_progress: Progress | None,
) -> Tally:
    check_name(out)
    _check_apart(out, sources)
    tally = Tally(steps={name: Count() for name in _names(config)})  # complains before anything is read
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        with closing(_Run(folder, config, tally)) as run:
            for done in cleaned(_tasks(sources, format), config, workers or available_cores()):
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


def _check_apart(out: Path, sources: Sequence[Source]) -> None:
    """What is cleaned is not what is written: the raw rows would be gone."""
    for source in sources:
        if out.exists() and any(path.exists() and path.samefile(out) for path in source.paths):
            raise ConfigError(f"{out} is the source itself; name another file, so that the raw rows are kept")


class _Run:
    """What is known of the rows written so far."""

    def __init__(self, folder: Path, config: CleanConfig, tally: Tally) -> None:
        self._lines = (folder / "lines").open("wb")
        self._tally = tally
        self._turns: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []
        self._exact = ExactDuplicates(folder) if config.duplicates else None
        self._near = None if config.near_duplicates is None else NearDuplicates(folder, config.near_duplicates)

    def take(self, done: Done) -> None:
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
        searches = ((EXACT, self._exact, REPEATS), (NEAR, self._near, SIMILAR))
        for name, search, reason in searches:
            if search is not None:
                count = self._tally.steps[name]
                count.rows_before, count.turns_before = int(kept.sum()), int(turns[kept].sum())
                if dropped := search.drop(kept):
                    count.reasons[reason] = dropped
                count.rows_after, count.turns_after = int(kept.sum()), int(turns[kept].sum())
        return kept


def _names(config: CleanConfig) -> list[str]:
    names = [step.name for step in steps_of(config)]
    return [*names, *[EXACT] * config.duplicates, *[NEAR] * (config.near_duplicates is not None)]


def _tasks(sources: Sequence[Source], format: str | None) -> Iterator[Task]:
    for number, source in enumerate(sources):
        known = format or source.format
        name, batches = (known, source.batches()) if known else _recognised(source)
        for batch in batches:
            share = None if batch.share is None else (number + batch.share) / len(sources)
            yield Task(source.name, format_named(name).name, batch, share)


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
