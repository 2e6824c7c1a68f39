"""Habits of users: how people write to an assistant, and how far a simulated user is from it, one function a habit.

A habit gives (how often, out of how many) for each user turn: (words, 1) for a length, (1, 1) for a turn that asks a
question, (misspelt words, words looked at) for typos. Over conversations that makes a mean or a share with an interval.
Against people it gives a distance: of lengths and rounds the Wasserstein-1 distance of the two distributions, in words,
tokens or rounds; of shares their absolute difference, which is the same for things that are or are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.intervals import Measurement, between, ratio
from bench.words import words
from selfplay.chat.conversation import Conversation
from selfplay.chat.drift import is_role_drift, normalise
from selfplay.chat.speakers import USER_ENDED
from selfplay.errors import MissingPackage

Counts = list[tuple[float, float]]
GREETING_OR_THANKS = re.compile(
    r"\b(hi|hello|hey|good (morning|afternoon|evening)|thanks|thank you|thx|ty|cheers|appreciate(d)?)\b", re.IGNORECASE
)
_QUESTION = re.compile(r"[?？؟]")
_CHECKED = re.compile(r"(?<![\w'’.@/-])[a-z]{3,}(?![\w'’@/-]|://)")


@dataclass(frozen=True, slots=True)
class Habit:
    """One habit. `size`: its values are numbers with a distribution, not shares."""

    name: str
    counts: Callable[[Conversation], Counts]
    size: bool = False
    english: bool = False
    """Whether it knows English only."""


def words_per_turn(conversation: Conversation) -> Counts:
    """Words of each user turn (`bench.words`)."""
    return [(len(words(text)), 1) for text in conversation.of("user")]


def questions(conversation: Conversation) -> Counts:
    """Turns with a question mark of any script."""
    return [(bool(_QUESTION.search(text)), 1) for text in conversation.of("user")]


def greetings_and_thanks(conversation: Conversation) -> Counts:
    """Turns with a word of greeting or thanks."""
    return [(bool(GREETING_OR_THANKS.search(text)), 1) for text in conversation.of("user")]


def typos(conversation: Conversation) -> Counts:
    """Misspelt words out of those looked at: all in small letters, three or more, not known to the English word list.

    Names are not looked at unless their writer uses no capitals, so those who do not have a higher figure.
    """
    looked_at = [_CHECKED.findall(text) for text in conversation.of("user")]
    return [(sum(word not in _known_words() for word in checked), len(checked)) for checked in looked_at]


def small_first_letters(conversation: Conversation) -> Counts:
    """Turns that start with a small letter."""
    return [(text.lstrip()[:1].islower(), 1) for text in conversation.of("user")]


def repeated_turns(conversation: Conversation) -> Counts:
    """Turns that say an earlier one of their conversation again, but for case and spacing."""
    earlier: set[str] = set()
    counts: Counts = []
    for text in map(normalise, conversation.of("user")):
        counts.append((text in earlier, 1))
        earlier.add(text)
    return counts


def role_drift(conversation: Conversation) -> Counts:
    """Turns in which the user speaks as the assistant (`selfplay.chat.drift`)."""
    counts: Counts = []
    answered = None
    for turn in conversation.turns:
        if turn.role == "user":
            counts.append((is_role_drift(turn.content, answered), 1))
        elif turn.role == "assistant":
            answered = turn.content
    return counts


def rounds(conversation: Conversation) -> Counts:
    """Answered user turns of the conversation. Of one that was cut at its source nobody knows how many there were."""
    length_known = conversation.complete or conversation.ended is not None
    return [(conversation.rounds, 1)] if length_known else []


def ended_by_user(conversation: Conversation) -> Counts:
    """Simulated conversations that their user ended; the others ran out of context or rounds, or broke a rule."""
    return [(conversation.ended == USER_ENDED, 1)] if conversation.ended is not None else []


ENDED = Habit("ended_by_user", ended_by_user)
ROUNDS = Habit("rounds", rounds, size=True)
HABITS = (
    Habit("words_per_turn", words_per_turn, size=True),
    Habit("questions", questions),
    Habit("greetings_thanks", greetings_and_thanks, english=True),
    Habit("typos", typos, english=True),
    Habit("small_first_letter", small_first_letters),
    Habit("repeated_turns", repeated_turns),
    Habit("role_drift", role_drift, english=True),
)


def tokens_per_turn(count: Callable[[str], int]) -> Habit:
    """Tokens of each user turn, by a tokenizer's count."""
    return Habit("tokens_per_turn", lambda c: [(count(text), 1) for text in c.of("user")], size=True)


@dataclass(frozen=True, slots=True)
class Counted:
    """A habit counted: `value` and `out_of` of every turn, and the conversation it stands in; (N,)."""

    habit: Habit
    value: NDArray[np.float64]
    out_of: NDArray[np.float64]
    conversation: NDArray[np.int64]
    conversations: int


def counted(habit: Habit, conversations: Sequence[Conversation]) -> Counted:
    """The habit's counts over conversations; those it has nothing to say of are left out."""
    per_conversation = [counts for counts in map(habit.counts, conversations) if counts]
    flat = np.array([count for counts in per_conversation for count in counts], dtype=float).reshape(-1, 2)
    owner = np.repeat(np.arange(len(per_conversation)), [len(counts) for counts in per_conversation])
    return Counted(habit, flat[:, 0], flat[:, 1], owner, len(per_conversation))


def rate(side: Counted) -> Measurement:
    """Mean of a size, or a share; over turns, with an interval over conversations."""
    total, out_of = (
        np.bincount(side.conversation, of, side.conversations).astype(float) for of in (side.value, side.out_of)
    )
    if not out_of.any():
        raise ValueError("nothing to look at")
    return ratio(total, out_of)


def distance(people: Counted, simulated: Counted) -> Measurement:
    """Wasserstein-1 distance of sizes, absolute difference of shares. Both sides are resampled; `n`: simulated.

    No distance is below 0, so samples of one kind are apart too: two halves of people show how far.
    """

    def apart(rows: NDArray[np.intp], others: NDArray[np.intp]) -> float:
        if not people.habit.size:
            return abs(_share(people, rows) - _share(simulated, others))
        return float(np.abs(np.subtract(*_cumulative(_histogram(people, rows), _histogram(simulated, others)))).sum())

    return between(people.conversations, simulated.conversations, apart)


def _share(side: Counted, rows: NDArray[np.intp]) -> float:
    times = np.bincount(rows, minlength=side.conversations)[side.conversation]
    return float(times @ side.value / max(float(times @ side.out_of), 1e-9))


def _histogram(side: Counted, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    times = np.bincount(rows, minlength=side.conversations)[side.conversation]
    return np.bincount(side.value.astype(np.int64), times).astype(float)


def _cumulative(*histograms: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    longest = max(map(len, histograms))
    return [np.cumsum(np.pad(h, (0, longest - len(h)))) / max(h.sum(), 1) for h in histograms]


@cache
def _known_words() -> Any:
    """The English word list of pyspellchecker.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        from spellchecker import SpellChecker
    except ImportError as error:
        raise MissingPackage("typos need pyspellchecker; `pip install 'selfplay[bench]'`") from error
    return SpellChecker(language="en").word_frequency.dictionary
