"""Selection of conversations: filters, then deduplication, then further steps, each counted for the report.

It does not know where conversations come from or what a filter checks. Nothing is deleted: a dropped conversation
stays in its source, and a row with the step and the reason is written beside the output.

Trap: a conversation is identified by its place in reading order. Every pass over the sources must use the same order.
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
"""Number of conversations whose MinHash signatures are computed at once."""

Step = tuple[str, str]
"""Name of a curation step, and the reason why it dropped a conversation."""


@dataclass(slots=True)
class Selection:
    """The decision on each conversation in reading order, and the counts of each step.

    Attributes:
        left_out: the step and reason that dropped a conversation; None where it is kept.
    """

    tally: Tally = field(default_factory=Tally)
    ids: list[str] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    left_out: list[Step | None] = field(default_factory=list)

    def drop(self, place: int, step: str, reason: str) -> None:
        """Drop the conversation at a place."""
        self.left_out[place] = (step, reason)

    def count(self, step: str, before: Sequence[int]) -> None:
        """Count a finished step over the conversations that were kept before it."""
        counts = Count(rows_before=len(before), turns_before=sum(self.turns[place] for place in before))
        after = [place for place in before if self.left_out[place] is None]
        counts.rows_after, counts.turns_after = len(after), sum(self.turns[place] for place in after)
        gone = (self.left_out[place] for place in before)
        counts.reasons = Counter(why[1] for why in gone if why is not None)
        self.tally.steps[step] = counts

    @property
    def kept(self) -> list[int]:
        """Places of the conversations that are kept so far."""
        return [place for place, why in enumerate(self.left_out) if why is None]


def select(
    conversations: Iterable[Conversation],
    filters: Sequence[Filter],
    config: CurateConfig,
    earlier: Iterable[Conversation] = (),
) -> Selection:
    """Run the filters and the deduplication.

    Args:
        earlier: conversations that later ones are compared with; they are not filtered and get no decision.
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
    """Yield one row for each dropped conversation: {id, step, reason}."""
    for id, why in zip(verdicts.ids, verdicts.left_out, strict=True):
        if why is not None:
            yield {"id": id, "step": why[0], "reason": why[1]}


def _filtered(
    conversations: Iterable[Conversation], filters: Sequence[Filter], verdicts: Selection
) -> Iterator[Conversation]:
    """Record the verdict of the filters on each conversation, and pass on all of them, dropped ones too."""
    for conversation in conversations:
        verdicts.ids.append(conversation.id)
        verdicts.turns.append(len(conversation.turns))
        verdicts.left_out.append(_why(conversation, filters, verdicts.tally.steps))
        yield conversation


def _why(conversation: Conversation, filters: Sequence[Filter], steps: dict[str, Count]) -> Step | None:
    """The first filter that drops a conversation; each filter counts only the conversations that reach it."""
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
    """Exact and near deduplication; the earlier conversations are added first."""

    def __init__(self, folder: Path, config: CurateConfig) -> None:
        self._exact = ExactDuplicates(folder) if config.duplicates else None
        self._near = None if config.near_duplicates is None else NearDuplicates(folder, config.near_duplicates)
        self._rows = 0
        self._places: list[int | None] = []
        """For each row its place in the selection; None for an earlier conversation."""

    def add(self, conversations: Iterable[Conversation], verdicts: Selection | None) -> None:
        """Add conversations; those that a filter has dropped are skipped, so that nothing counts as their duplicate."""
        batch: list[Conversation] = []
        for conversation in conversations:
            # `_filtered` appends the verdict just before it yields, so the last one is this conversation's.
            if verdicts is not None and verdicts.left_out[-1] is not None:
                continue
            self._places.append(None if verdicts is None else len(verdicts.ids) - 1)
            batch.append(conversation)
            if len(batch) == _BATCH:
                self._take(batch)
                batch = []
        self._take(batch)

    def decide(self, verdicts: Selection) -> None:
        """Drop conversations that repeat, or are similar to, an earlier one that is kept."""
        kept = np.ones(len(self._places), bool)
        searches = ((EXACT, self._exact, REPEATS), (NEAR, self._near, SIMILAR))
        for name, search, reason in searches:
            if search is None:
                continue
            before = verdicts.kept
            if isinstance(search, NearDuplicates):
                search.drop(kept, first=self._places.count(None))  # earlier ones always stay
            else:
                search.drop(kept)
            for row in np.flatnonzero(~kept):
                place = self._places[row]
                if place is not None and verdicts.left_out[place] is None:
                    verdicts.drop(place, name, reason)
            verdicts.count(name, before)

    def close(self) -> None:
        """Close the files of digests and signatures."""
        for search in (self._exact, self._near):
            if search is not None:
                search.close()

    def _take(self, batch: Sequence[Conversation]) -> None:
        """Add the digests and signatures of a batch."""
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
    """Run one more step over the conversations that are kept so far, in batches: for steps that run a model."""
    before, pending = verdicts.kept, list[tuple[int, Conversation]]()
    wanted = set(before)

    def decide() -> None:
        for (place, _), reason in zip(pending, reason_of([conversation for _, conversation in pending]), strict=True):
            if reason is not None:
                verdicts.drop(place, name, reason)
        pending.clear()

    for place, conversation in enumerate(conversations):
        if place in wanted:
            pending.append((place, conversation))
        if len(pending) == batch:
            decide()
    decide()
    verdicts.count(name, before)
