"""Datasets to conversations, with nothing dropped in silence.

Bad rows are counted by reason and skipped; `strict` stops at the first one. The held-out share is chosen by the hash of
(dataset, group), a group being one conversation or, where the data knows them, one person or one longer talk. So it
stays the same whatever else is loaded, and nobody is in both halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from selfplay.chat.conversation import Conversation
from selfplay.data.catalogue import Source, catalogue, local_file, locate
from selfplay.data.formats import Format, format_named, recognise
from selfplay.data.rejects import Rejects
from selfplay.data.runs import SELF_PLAY, RunView, read_run
from selfplay.errors import BadRow, DataError, InvalidConversation
from selfplay.seeds import unit_interval
from selfplay.store.store import open_run

Split = Literal["train", "held_out", "all"]


@dataclass(slots=True)
class LoadResult:
    """Conversations of one or more datasets and what was left out."""

    conversations: list[Conversation] = field(default_factory=list)
    rows: int = 0
    refused: Rejects = field(default_factory=Rejects)
    unfinished: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Runs among them that still go on: conversations that have not ended, and all of them."""


def load(
    names: Iterable[str],
    *,
    split: Split = "all",
    held_out: float = 0.05,
    format: str | None = None,
    strict: bool = False,
    view: RunView = "trainable",
) -> LoadResult:
    """Read datasets by catalogue name or path.

    Args:
        names: `sample`, catalogue names, paths or hub names.
        split: which share to keep; `held_out` is the share in (0, 1) kept from training.
        format: overrides the recognised format of paths.
        strict: raise at the first bad row instead of counting it.
        view: what of a run is read; see `selfplay.data.runs`.

    Raises:
        DataError: a dataset is not found, unreadable, or gives no conversation at all.
    """
    loaded = LoadResult()
    names = list(names)
    for name in names:
        loaded.conversations += stream(locate(name), loaded, format=format, strict=strict, view=view)
    if not loaded.conversations:
        raise DataError(f"no usable conversation in {', '.join(names)}: {loaded.refused.summary() or 'no rows'}")
    if split != "all":
        train, kept = split_conversations(loaded.conversations, held_out)
        loaded.conversations = kept if split == "held_out" else train
    return loaded


def first_conversation(name: str) -> Conversation | None:
    """The first conversation of a file, or of a dataset of the catalogue whose file is on this machine."""
    dataset = catalogue().get(name)
    if dataset is not None and local_file(dataset) is None:
        return None
    return next(stream(locate(name), LoadResult()), None)


def stream(
    source: Source,
    loaded: LoadResult,
    *,
    format: str | None = None,
    strict: bool = False,
    view: RunView = "trainable",
    on_share: Callable[[float | None], None] = lambda share: None,
) -> Iterator[Conversation]:
    """The conversations of one source as they are read; rows and refusals are counted in `loaded`.

    Args:
        view: what of a run is read; see `selfplay.data.runs`.
        on_share: called with the share of the source that has been read, where that is known.

    Raises:
        DataError: unreadable, or (strict) a bad row.
    """
    if source.run is not None:
        yield from _stream_run(source.run, loaded, strict, view, on_share)
        return
    known = format or source.format
    chosen: Format | None = format_named(known) if known else None
    for batch in source.batches():
        on_share(batch.share)
        for row in batch.rows():
            loaded.rows += 1
            try:
                data = row.value()
                chosen = chosen or recognise(data)
                conversations = list(chosen.convert(data))
            except (BadRow, InvalidConversation) as error:
                if strict:
                    raise DataError(f"{row.place}: {error}") from error
                loaded.refused.add(row.place, error)
                continue
            for conversation in conversations:
                yield replace(conversation, meta={"dataset": source.name, **conversation.meta})


def _stream_run(
    folder: Path, loaded: LoadResult, strict: bool, view: RunView, on_share: Callable[[float | None], None]
) -> Iterator[Conversation]:
    """A run's conversations as they were said, token ids and origins included."""
    with open_run(folder) as run:
        planned, ended = run.counts()
        if ended < planned:
            loaded.unfinished[str(folder)] = (planned - ended, planned)
        for number, (place, found) in enumerate(read_run(run, view), start=1):
            loaded.rows += 1
            on_share(number / planned)
            if isinstance(found, Conversation):
                yield replace(found, meta={"dataset": SELF_PLAY, **found.meta})
            elif strict:
                raise DataError(f"{place}: {found}")
            else:
                loaded.refused.add(place, found)


def split_conversations(
    conversations: list[Conversation], share: float
) -> tuple[list[Conversation], list[Conversation]]:
    """Loaded conversations as (training, held-out) halves.

    Raises:
        DataError: a half comes out empty.
    """
    train: list[Conversation] = []
    held_out: list[Conversation] = []
    for conversation in conversations:
        (held_out if is_held_out(conversation, share) else train).append(conversation)
    check_split(train, held_out, share, LoadResult(conversations))
    return train, held_out


def check_split(train: list[Conversation], held_out: list[Conversation], share: float, loaded: LoadResult) -> None:
    """Refuse halves of which one is empty.

    Raises:
        DataError: it is; the message says why there may be so little.
    """
    total = len(train) + len(held_out)
    if not total:
        raise DataError(f"no usable conversation: {loaded.refused.summary() or 'no rows'}")
    for name, half in (("training", train), ("held-out", held_out)):
        if not half:
            raise DataError(
                f"none of {total} conversations falls into the {name} half with held_out {share}; "
                "change the held-out share or give more data (of a mixture, both train.jsonl and validation.jsonl)"
            )


def is_held_out(conversation: Conversation, share: float) -> bool:
    """Whether a loaded conversation belongs to the held-out share of its dataset, or was put there by `data mix`."""
    meta = conversation.meta
    if "half" in meta:
        return bool(meta["half"] == "validation")
    return unit_interval("held-out", str(meta["dataset"]), str(meta.get("group", conversation.id))) < share
