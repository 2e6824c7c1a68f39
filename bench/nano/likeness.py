"""Free self-play beside people: rounds, distinct openings, repeats and the reasons of ending."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.intervals import Measurement, bootstrap, subsampled
from selfplay.chat.conversation import Conversation
from selfplay.chat.drift import normalise


@dataclass(frozen=True, slots=True)
class Likeness:
    """One row of the table: simulated users, or people."""

    conversations: int
    rounds: Measurement
    distinct_openings: Measurement
    """Share of different first user turns among `equal_n` conversations (interval: subsamples of two thirds)."""
    equal_n: int
    repeats: Measurement
    """Share of user turns that repeat an earlier one of their conversation word for word."""
    words: Measurement
    """Words per user turn."""


def describe(conversations: Sequence[Conversation], equal_n: int, seed: int = 0) -> Likeness:
    """The figures of one row. Conversations without a user turn count as zero rounds and nothing else."""
    import numpy as np

    users = [conversation.of("user") for conversation in conversations]
    rounds = np.array([conversation.rounds for conversation in conversations], dtype=float)
    turns = np.array([len(texts) for texts in users], dtype=float)
    repeats = np.array([len(texts) - len({normalise(text) for text in texts}) for texts in users], dtype=float)
    words = np.array([sum(len(text.split()) for text in texts) for texts in users], dtype=float)
    openings = [normalise(texts[0]) for texts in users if texts]
    chosen = random.Random(seed).sample(openings, min(equal_n, len(openings)))
    n = len(conversations)
    return Likeness(
        n,
        bootstrap(n, lambda rows: float(rounds[rows].mean())),
        subsampled(len(chosen), lambda rows: len({chosen[row] for row in rows}) / len(rows), seed),
        len(chosen),
        bootstrap(n, lambda rows: float(repeats[rows].sum() / max(turns[rows].sum(), 1))),
        bootstrap(n, lambda rows: float(words[rows].sum() / max(turns[rows].sum(), 1))),
    )


def reasons(conversations: Sequence[Conversation]) -> dict[str, float]:
    """Share of conversations by reason of ending."""
    counts = Counter(conversation.ended or "unfinished" for conversation in conversations)
    return {reason: count / len(conversations) for reason, count in counts.most_common()}
