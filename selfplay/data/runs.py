"""Runs of self-play as data: their ended conversations, by what they are read for.

trainable   as `selfplay export` writes them: failed ones and those without an answered round are refused, an unanswered
            last user turn is left out
scored      failed ones are refused; the others as they were said
ended       all of them, failed ones too, an unanswered last user turn left out: curation decides itself
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from selfplay.chat.conversation import Conversation
from selfplay.data.raw_rows import Batch, Cells, batched
from selfplay.data.rows import row_of
from selfplay.errors import BadRow
from selfplay.store.export import answered, is_failed
from selfplay.store.store import RunReader, open_run

RunView = Literal["trainable", "scored", "ended"]
SELF_PLAY = "self-play"
"""The dataset of generated conversations: which of them are held out must not depend on where their run lies."""


def read_run(run: RunReader, view: RunView) -> Iterator[tuple[str, Conversation | BadRow]]:
    """The ended conversations of a run, each with its place, or why it is refused."""
    name = Path(run.folder).name
    for number, conversation in enumerate(run.conversations()):
        yield f"{name}[{number}]", _viewed(conversation, view)


def run_batches(folder: Path) -> Iterator[Batch]:
    """A run as raw rows of the `messages` format, for what reads rows rather than conversations.

    Raises:
        StoreError: there is no run that can be read.
    """
    with open_run(folder) as run:
        planned, _ = run.counts()
        items = ((number, _item(found), 1) for number, (_, found) in enumerate(read_run(run, "trainable")))
        for numbers, kept in batched(items):
            yield Batch(folder.name, numbers, kept, (numbers[-1] + 1) / planned)


def _item(found: Conversation | BadRow) -> dict[str, Any] | Cells:
    if isinstance(found, BadRow):
        return Cells({}, str(found))
    return {**row_of(found), "ended": found.ended}


def _viewed(conversation: Conversation, view: RunView) -> Conversation | BadRow:
    if view != "ended" and is_failed(conversation.ended):
        return BadRow(f"ended {conversation.ended}")
    if view == "scored":
        return conversation
    whole = answered(conversation)
    if view == "trainable" and whole.rounds == 0:
        return BadRow("no answered round")
    return whole
