"""What `selfplay bench corpus` does: any number of corpora, each read once, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from selfplay.chat.conversation import Conversation
from selfplay.chat.models import load_renderer, locate_model
from selfplay.data.batches import Batch
from selfplay.data.catalogue import Source, locate
from selfplay.data.loading import Loaded, stream
from selfplay.errors import ConfigError, DataError
from selfplay.generation import open_run
from selfplay.store.store import DATABASE

if TYPE_CHECKING:
    from bench.corpus import CountTokens, Described
    from bench.embeddings import Embedder
    from bench.overlap import Overlap

Progress = Callable[[int, float | None], None]
"""Called with the conversations read so far and the share of the corpus they make, where that is known."""
_BATCH = 512


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
) -> list[Described]:
    """Describe corpora: run folders, files, catalogue names or hub names, by the name they have in the table.

    Args:
        tokenizer: simulator folder whose tokenizer counts tokens.
        embeddings: a sentence-transformers model, for topic diversity and coherence.
        benchmarks: files of questions, in FastChat's layout.
        format: source schema of files, where it is not recognised.
        out: folder for `corpus.json` and `corpus.md`.
        on_progress: makes what is called as a corpus is read.

    Raises:
        ConfigError, DataError, ModelError, StoreError: no corpus, or one that is empty or cannot be read.
    """
    from bench.embeddings import Embedder
    from bench.overlap import Overlap
    from bench.questions import read_questions
    from bench.report import write_corpora

    if not corpora:
        raise ConfigError("nothing to describe: give run folders, files or catalogue names")
    renderer = load_renderer(locate_model(tokenizer, "simulator"), "user")
    embedder = Embedder(embeddings) if embeddings else None
    questions = [turn for path in benchmarks for question in read_questions(Path(path)) for turn in question.turns]
    overlap = Overlap(questions) if questions else None
    found = [
        _describe(name, source, renderer.count_tokens, overlap, embedder, format, on_progress(name))
        for name, source in corpora.items()
    ]
    notes = [f"tokens: tokenizer of {tokenizer}", *([f"embeddings: {embeddings}"] if embeddings else [])]
    if overlap is not None:
        notes.append(f"questions: {len(questions):,} turns of {', '.join(benchmarks)}, {overlap.too_short:,} too short")
    if out is not None:
        write_corpora(Path(out), found, notes)
    return found


def _describe(
    name: str,
    source: str,
    count_tokens: CountTokens,
    overlap: Overlap | None,
    embedder: Embedder | None,
    format: str | None,
    progress: Progress,
) -> Described:
    from bench.corpus import Describer

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
    if (Path(source) / DATABASE).exists():
        run = open_run(source)
        try:
            planned, _ = run.counts()
            for number, conversation in enumerate(run.conversations(), start=1):
                share[0] = number / planned
                if conversation.of("user") and not str(conversation.ended).startswith("failed:"):
                    yield conversation
        finally:
            run.close()
        return

    def told(value: float | None) -> None:
        share[0] = value

    located = locate(source)
    watched = _Watched(located.name, located.format, located.paths, located.hub, told)
    yield from stream(watched, loaded, format=format)
