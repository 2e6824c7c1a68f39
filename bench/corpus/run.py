"""`selfplay bench corpus`: statistics of any number of corpora, each read once, side by side."""

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
"""Called with the conversations read so far and the share of the corpus they make, where that is known."""
_BATCH = 512


class Corpora(NamedTuple):
    """Corpora in figures, and what they stand on or why some are missing."""

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
    """Those in which the user said something; the others are counted among what is refused."""
    for conversation in conversations:
        if conversation.of("user"):
            yield conversation
        else:
            loaded.refused.add(conversation.id, BadRow(f"ended {conversation.ended}"))
