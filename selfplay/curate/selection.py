"""Curation: conversations through filters, duplicates among them and against earlier ones, and a funnel of it all.

Nothing is deleted: what is left out keeps its place in the run and gets a row with step and reason beside the output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from selfplay.chat.conversation import Conversation
from selfplay.curate.config import CurateConfig
from selfplay.curate.filters import Filter
from selfplay.data.cleaning.duplicates import ExactDuplicates, NearDuplicates, signatures, text_digest
from selfplay.data.cleaning.reasons import EXACT, NEAR, REPEATS, SIMILAR
from selfplay.data.cleaning.report import Count, Tally

_BATCH = 512
"""Conversations whose signatures are made at once."""

Step = tuple[str, str]
"""Name of a step and the reason it left a conversation out."""


@dataclass(slots=True)
class Selection:
    """What became of each conversation, in order: None where it is kept."""

    tally: Tally = field(default_factory=Tally)
    ids: list[str] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    left_out: list[Step | None] = field(default_factory=list)

    def drop(self, place: int, step: str, reason: str) -> None:
        """Leave one out."""
        self.left_out[place] = (step, reason)

    def count(self, step: str, before: Sequence[int]) -> None:
        """Count a step that has been taken, on the conversations that were there before it."""
        told = Count(rows_before=len(before), turns_before=sum(self.turns[place] for place in before))
        after = [place for place in before if self.left_out[place] is None]
        told.rows_after, told.turns_after = len(after), sum(self.turns[place] for place in after)
        gone = (self.left_out[place] for place in before)
        told.reasons = Counter(why[1] for why in gone if why is not None)
        self.tally.steps[step] = told

    @property
    def kept(self) -> list[int]:
        """Places of what is still in."""
        return [place for place, why in enumerate(self.left_out) if why is None]


def select(
    conversations: Iterable[Conversation],
    filters: Sequence[Filter],
    config: CurateConfig,
    earlier: Iterable[Conversation] = (),
) -> Selection:
    """Which conversations stay, after filters and duplicates.

    Args:
        earlier: conversations that count as already there; none of them is judged.
    """
    verdicts = Selection(Tally(steps={step.name: Count() for step in filters}))
    with TemporaryDirectory(prefix="selfplay-curate-") as name, closing(_Duplicates(Path(name), config)) as duplicates:
        duplicates.add(earlier, None)
        duplicates.add(_filtered(conversations, filters, verdicts), verdicts)
        duplicates.decide(verdicts)
    verdicts.tally.rows = verdicts.tally.conversations = len(verdicts.ids)
    verdicts.tally.turns = sum(verdicts.turns)
    return verdicts


def rows_left_out(verdicts: Selection) -> Iterator[dict[str, Any]]:
    """A row a conversation that is left out: {id, step, reason}."""
    for id, why in zip(verdicts.ids, verdicts.left_out, strict=True):
        if why is not None:
            yield {"id": id, "step": why[0], "reason": why[1]}


def _filtered(
    conversations: Iterable[Conversation], filters: Sequence[Filter], verdicts: Selection
) -> Iterator[Conversation]:
    for conversation in conversations:
        verdicts.ids.append(conversation.id)
        verdicts.turns.append(len(conversation.turns))
        verdicts.left_out.append(_why(conversation, filters, verdicts.tally.steps))
        yield conversation


def _why(conversation: Conversation, filters: Sequence[Filter], steps: dict[str, Count]) -> Step | None:
    """The first filter that has a reason, each counted on what comes to it."""
    turns = len(conversation.turns)
    for step in filters:
        count = steps[step.name]
        count.rows_before += 1
        count.turns_before += turns
        if (reason := step.reason(conversation)) is not None:
            count.reasons[reason] += 1
            return step.name, reason
        count.rows_after += 1
        count.turns_after += turns
    return None


class _Duplicates:
    """Exact and near duplicates, earlier conversations first."""

    def __init__(self, folder: Path, config: CurateConfig) -> None:
        self._exact = ExactDuplicates(folder) if config.duplicates else None
        self._near = None if config.near_duplicates is None else NearDuplicates(folder, config.near_duplicates)
        self._rows = 0
        self._places: list[int | None] = []
        """Of each row its place among the verdicts; None: an earlier conversation."""

    def add(self, conversations: Iterable[Conversation], verdicts: Selection | None) -> None:
        """Take conversations in; of judged ones those that no filter has left out."""
        batch: list[Conversation] = []
        for conversation in conversations:
            if verdicts is not None and verdicts.left_out[-1] is not None:
                continue
            self._places.append(None if verdicts is None else len(verdicts.ids) - 1)
            batch.append(conversation)
            if len(batch) == _BATCH:
                self._take(batch)
                batch = []
        self._take(batch)

    def decide(self, verdicts: Selection) -> None:
        """Leave out what repeats, or is like, an earlier one that stays."""
        kept = np.ones(len(self._places), bool)
        searches = ((EXACT, self._exact, REPEATS), (NEAR, self._near, SIMILAR))
        for name, search, reason in searches:
            if search is None:
                continue
            before = verdicts.kept
            if isinstance(search, NearDuplicates):
                search.drop(kept, first=self._places.count(None))  # earlier ones stay, whatever they are like
            else:
                search.drop(kept)
            for row in np.flatnonzero(~kept):
                place = self._places[row]
                if place is not None and verdicts.left_out[place] is None:
                    verdicts.drop(place, name, reason)
            verdicts.count(name, before)

    def close(self) -> None:
        """Nothing more will come."""
        for search in (self._exact, self._near):
            if search is not None:
                search.close()

    def _take(self, batch: Sequence[Conversation]) -> None:
        if not batch:
            return
        if self._exact is not None:
            self._exact.add(b"".join(map(text_digest, batch)))
        if self._near is not None:
            texts = ["\n".join(turn.content for turn in conversation.turns) for conversation in batch]
            self._near.add(signatures(texts).tobytes())


def leave_out_by(
    verdicts: Selection,
    name: str,
    reason_of: Callable[[Sequence[Conversation]], Sequence[str | None]],
    conversations: Iterable[Conversation],
    batch: int = _BATCH,
) -> None:
    """One more step over what is still in, many at once: for reasons a model has to give."""
    before, held = verdicts.kept, list[tuple[int, Conversation]]()
    wanted = set(before)

    def decide() -> None:
        for (place, _), reason in zip(held, reason_of([conversation for _, conversation in held]), strict=True):
            if reason is not None:
                verdicts.drop(place, name, reason)
        held.clear()

    for place, conversation in enumerate(conversations):
        if place in wanted:
            held.append((place, conversation))
        if len(held) == batch:
            decide()
    decide()
    verdicts.count(name, before)
