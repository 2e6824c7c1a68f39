"""What `selfplay bench corpus` does: any number of corpora, each read once, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from selfplay.chat.conversation import Conversation
from selfplay.chat.models import token_counter
from selfplay.data.catalogue import Source, locate
from selfplay.data.loading import Loaded, stream
from selfplay.data.raw_rows import Batch
from selfplay.errors import BadRow, ConfigError, DataError, MissingPackage, SelfplayError
from selfplay.store.store import is_run, open_run

if TYPE_CHECKING:
    from bench.corpus.describe import CountTokens, Described
    from bench.metrics.embeddings import Embedder
    from bench.metrics.overlap import Overlap

Progress = Callable[[int, float | None], None]
"""Called with the conversations read so far and the share of the corpus they make, where that is known."""
_BATCH = 512


class Corpora(NamedTuple):
    """Corpora in figures, and what they stand on or why some are missing."""

    found: list[Described]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Watched(Source):
    """A source that says how far it is read."""

    told: Callable[[float | None], None] = lambda share: None

    def batches(self) -> Iterator[Batch]:
        """The batches of all files; the share counts files alike."""
        for number, path in enumerate(self.paths):
            for batch in Source(self.name, self.format, (path,)).batches():
                self.told(None if batch.share is None else (number + batch.share) / len(self.paths))
                yield batch
        if self.hub is not None:
            for batch in self.hub.batches():
                self.told(batch.share)
                yield batch


def describe_corpora(
    corpora: Mapping[str, str],
    *,
    tokenizer: str = "nano",
    embeddings: str | None = None,
    benchmarks: Sequence[str] = (),
    format: str | None = None,
    out: str | Path | None = None,
    on_progress: Callable[[str], Progress] = lambda name: lambda rows, share: None,
) -> Corpora:
    """Describe corpora: run folders, files, catalogue names or hub names, by the name they have in the table.

    Args:
        tokenizer: folder whose tokenizer counts tokens.
        embeddings: a sentence-transformers model, for topic diversity and coherence.
        benchmarks: files of questions, in FastChat's layout.
        format: source schema of files, where it is not recognised.
        out: folder for `corpus.json` and `corpus.md`.
        on_progress: makes what is called as a corpus is read.

    Raises:
        ConfigError, ModelError: no corpus, or settings that cannot be used.
        DataError, StoreError: none of the corpora could be read, or all are empty. One of several is left out and said.
    """
    from bench.metrics.embeddings import Embedder
    from bench.metrics.overlap import Overlap
    from bench.nano.report import write_corpora
    from bench.questions import read_questions

    if not corpora:
        raise ConfigError("nothing to describe: give run folders, files or catalogue names")
    count_tokens = token_counter(tokenizer)
    notes = [f"tokens: tokenizer of {tokenizer}", *([f"embeddings: {embeddings}"] if embeddings else [])]
    embedder = None
    try:
        embedder = Embedder(embeddings) if embeddings else None
    except MissingPackage as error:
        notes.append(f"topic diversity and coherence are left out: {error}")
    questions = [turn for path in benchmarks for question in read_questions(Path(path)) for turn in question.turns]
    overlap = Overlap(questions) if questions else None
    found, failed = [], []
    for name, source in corpora.items():
        try:
            found.append(_describe(name, source, count_tokens, overlap, embedder, format, on_progress(name)))
        except SelfplayError as error:  # what was read before it is not lost
            failed.append(error)
            notes.append(f"{name} is left out: {error}")
    if not found:
        raise failed[0]
    if overlap is not None:
        notes.append(f"questions: {len(questions):,} turns of {', '.join(benchmarks)}, {overlap.too_short:,} too short")
    if out is not None:
        write_corpora(Path(out), found, notes)
    return Corpora(found, notes)


def _describe(
    name: str,
    source: str,
    count_tokens: CountTokens,
    overlap: Overlap | None,
    embedder: Embedder | None,
    format: str | None,
    progress: Progress,
) -> Described:
    from bench.corpus.describe import Describer

    share: list[float | None] = [None]
    loaded = Loaded()
    with (
        TemporaryDirectory() as folder,
        closing(Describer(name, Path(folder), count_tokens, overlap)) as describer,
    ):
        conversations = _conversations(source, loaded, format, share)
        while batch := list(islice(conversations, _BATCH)):
            describer.add(batch)
            progress(describer.n, share[0])
        if not describer.n:
            raise DataError(f"{source}: no conversation in it: {loaded.refused.summary() or 'no rows'}")
        progress(describer.n, 1.0)
        described = describer.described(embedder)
    described.refused = loaded.refused.counts.total()
    return described


def _conversations(
    source: str, loaded: Loaded, format: str | None, share: list[float | None]
) -> Iterator[Conversation]:
    """Conversations of a run or of data, one after the other; `share[0]` is how far."""
    if is_run(source):
        run = open_run(source)
        try:
            planned, _ = run.counts()
            for number, conversation in enumerate(run.conversations(), start=1):
                share[0] = number / planned
                if not conversation.of("user") or str(conversation.ended).startswith("failed:"):
                    loaded.refused.add(conversation.id, BadRow(f"ended {conversation.ended}"))
                else:
                    yield conversation
        finally:
            run.close()
        return

    def told(value: float | None) -> None:
        share[0] = value

    located = locate(source)
    watched = _Watched(located.name, located.format, located.paths, located.hub, told)
    yield from stream(watched, loaded, format=format)
