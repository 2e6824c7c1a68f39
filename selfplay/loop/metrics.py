"""The metrics in a loop's ledger: names, titles, good directions; and the metrics of each iteration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Direction = Literal["low", "high", "people", "0.5", ""]
"""Which way is better; `people`: as people's."""
HUMAN = "people"
"""Where an entry's figures hold people's, by name."""


class MetricSpec(NamedTuple):
    """A figure of the loop."""

    name: str
    title: str
    good: Direction


ASSISTANT = (
    MetricSpec("bits_per_byte", "bits per byte of held-out people's assistants", "low"),
    MetricSpec("gain", "bits per byte gained over the best before", "high"),
)
USERS = (
    MetricSpec("naturalness_auc", "AUC, simulated users told from people", "0.5"),
    MetricSpec("distinct_2", "distinct-2 of user turns", "people"),
    MetricSpec("first_turn_diversity", "first turns, 1 - Jaccard", "people"),
    MetricSpec("rounds", "rounds", "people"),
    MetricSpec("words_per_turn", "words per user turn", "people"),
    MetricSpec("ended_by_user", "conversations the user ended", "high"),
    MetricSpec("repeated_turns", "user turns repeated word for word", "people"),
    MetricSpec("role_drift", "user turns speaking as the assistant", "low"),
)
CORPUS = (
    MetricSpec("mtld", "MTLD of both sides", "people"),
    MetricSpec("tokens_per_user_turn", "tokens per user turn", "people"),
    MetricSpec("tokens_per_assistant_turn", "tokens per assistant turn", "people"),
    MetricSpec("tokens_per_dialogue", "tokens per conversation", "people"),
    MetricSpec("repeated_dialogues", "repeated conversations", "low"),
)
DATA = (
    MetricSpec("conversations", "conversations held", ""),
    MetricSpec("kept", "of them kept by curation", ""),
    MetricSpec("copied", "user turns that copy the simulator's training turns", "low"),
    MetricSpec("trained_on", "conversations the assistant learned from", ""),
    MetricSpec("human_share", "people's share among them", ""),
    MetricSpec("eval_loss", "held-out loss of its training, nats per token", "low"),
)
FIGURES = (*ASSISTANT, *USERS, *CORPUS, *DATA)
NAMES = frozenset(figure.name for figure in FIGURES)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A figure with its 95 % interval, where it has one, and people's."""

    value: float
    low: float | None = None
    high: float | None = None
    people: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return number(self.value)
        digits = _digits(self.value)
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def number(value: float) -> str:
    """A figure as text, whole numbers with their thousands set apart."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    size = abs(value)
    return 1 if size >= 100 else 2 if size >= 10 else 4 if 0 < size < 0.01 else 3


IterationMetrics = dict[str, MetricValue]
"""Figures of an iteration by name."""


def by_iteration(entries: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, IterationMetrics]:
    """The figures of finished stages, those of one iteration together.

    Args:
        entries: iteration and figures of each stage, in order; a later stage's count where two have one name.
    """
    found: dict[int, IterationMetrics] = {}
    for iteration, figures in entries:
        people = figures.get(HUMAN, {})
        known = found.setdefault(iteration, {})
        for name, told in figures.items():
            if name != HUMAN and told is not None:
                value, low, high = told if isinstance(told, list) else (told, None, None)
                whose = people.get(name)
                known[name] = MetricValue(value, low, high, whose[0] if isinstance(whose, list) else whose)
    return found
