"""Intents in user turns: what a user gives away of what they want, turn by turn and in all.

English: stop words are those of scikit-learn.

Source: intent decomposition of UserLM (arXiv:2510.06552): how much a turn overlaps with the intent, stop words removed.
People say what they want bit by bit and in other words, so their overlap is low. Conversations carry the intent as
`meta.intent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bench.intervals import Measurement, bootstrap, ratio
from bench.words import words
from selfplay.chat.conversation import Conversation


def decomposition(conversations: Sequence[Conversation]) -> Measurement:
    """Mean over user turns of |turn ∩ intent| / |turn ∪ intent|, sets of words without stop words. Low is human."""
    sums = [_overlaps(conversation) for conversation in conversations]
    totals = np.array([(sum(overlaps), len(overlaps)) for overlaps in sums], dtype=float).reshape(-1, 2)
    return ratio(totals[:, 0], totals[:, 1])


def coverage(conversations: Sequence[Conversation]) -> Measurement:
    """Mean over conversations of the share of the intent's words that some user turn says, without stop words."""
    shares = np.array([_covered(conversation) for conversation in conversations])
    return bootstrap(len(shares), lambda rows: float(shares[rows].mean()))


def having_intents(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The conversations that carry an intent with words in it, and a user turn."""
    return [c for c in conversations if c.of("user") and content_words(str(c.meta.get("intent", "")))]


def content_words(text: str) -> frozenset[str]:
    """The different words of a text without stop words, shortened ones ("I'd", "don't") included."""
    return frozenset(word for word in words(text) if word.partition("'")[0] not in _stop_words())


def _overlaps(conversation: Conversation) -> list[float]:
    intent = content_words(str(conversation.meta["intent"]))
    turns = [content_words(text) for text in conversation.of("user")]
    return [len(turn & intent) / len(turn | intent) for turn in turns]


def _covered(conversation: Conversation) -> float:
    intent = content_words(str(conversation.meta["intent"]))
    user_words = frozenset[str]().union(*map(content_words, conversation.of("user")))
    return len(user_words & intent) / len(intent)


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    shortened = "don didn doesn isn aren wasn weren won can couldn wouldn shouldn haven hasn hadn let that there"
    return frozenset(ENGLISH_STOP_WORDS) | frozenset(shortened.split())
