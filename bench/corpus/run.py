"""Runner of `selfplay bench corpus`: statistics of any number of corpora, each read once, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from selfplay.chat.conversation import Conversation
from selfplay.chat.models import token_counter
from selfplay.data.catalogue import locate
from selfplay.data.loading import LoadResult, stream
from selfplay.errors import BadRow, ConfigError, DataError, MissingPackage, SelfplayError

if TYPE_CHECKING:
    from bench.corpus.describe import CountTokens, Described
    from bench.metrics.embeddings import Embedder
    from bench.metrics.overlap import Overlap

Progress = Callable[[int, float | None], None]
"""Called with the number of conversations read so far and the share of the corpus that they are, if it is known."""
_BATCH = 512


class Corpora(NamedTuple):
    """The statistics of corpora, and notes on how they were computed or why a corpus is missing."""

    found: list[Described]
    notes: list[str]


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
    """Compute the statistics of corpora.

    Args:
        corpora: a run folder, file, catalogue name or hub name for each name in the table.
        tokenizer: the folder whose tokenizer counts tokens.
        embeddings: a sentence-transformers model, for topic diversity and coherence.
        benchmarks: files of questions, in FastChat's layout.
        format: source schema of files, where it is not recognised.
        out: folder for `corpus.json` and `corpus.md`.
        on_progress: called with the name of a corpus; returns what is called as the corpus is read.

    Raises:
        ConfigError, ModelError: no corpus is given, or settings cannot be used.
        DataError, StoreError: no corpus could be read, or all are empty. If some can be read, the others are left out
            with a note.
    """
    from bench.corpus.report import write_corpora
    from bench.metrics.embeddings import Embedder
    from bench.metrics.overlap import Overlap
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
    described, failed = [], []
    for name, source in corpora.items():
        try:
            described.append(_describe(name, source, count_tokens, overlap, embedder, format, on_progress(name)))
        except SelfplayError as error:  # one unreadable corpus must not lose the others' figures
            failed.append(error)
            notes.append(f"{name} is left out: {error}")
    if not described:
        raise failed[0]
    if overlap is not None:
        notes.append(f"questions: {len(questions):,} turns of {', '.join(benchmarks)}, {overlap.too_short:,} too short")
    if out is not None:
        write_corpora(Path(out), described, notes)
    return Corpora(described, notes)


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
    loaded = LoadResult()
    with (
        TemporaryDirectory() as folder,
        closing(Describer(name, Path(folder), count_tokens, overlap)) as describer,
    ):
        read = stream(
            locate(source), loaded, format=format, view="scored", on_share=lambda value: share.__setitem__(0, value)
        )
        conversations = _spoken(read, loaded)
        while batch := list(islice(conversations, _BATCH)):
            describer.add(batch)
            progress(describer.n, share[0])
        if not describer.n:
            raise DataError(f"{source}: no conversation in it: {loaded.refused.summary() or 'no rows'}")
        progress(describer.n, 1.0)
        described = describer.described(embedder)
    described.refused = loaded.refused.counts.total()
    return described


def _spoken(conversations: Iterable[Conversation], loaded: LoadResult) -> Iterator[Conversation]:
    """The conversations with a user turn; the others are counted as refused rows."""
    for conversation in conversations:
        if conversation.of("user"):
            yield conversation
        else:
            loaded.refused.add(conversation.id, BadRow(f"ended {conversation.ended}"))
