"""What is written to a run and read back from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import Usage


@dataclass(frozen=True, slots=True)
class Plan:
    """A conversation to be held: its place, name, seed and given first turns (system prompt, opening)."""

    number: int
    id: str
    seed: int
    opening: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A conversation still owed: its plan and the turns already committed, the opening included."""

    plan: Plan
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of a conversation, committed as a whole.

    `turns` continue at position `at`; `ended` closes the conversation. A step without turns and without reason is
    never written.
    """

    conversation: int
    at: int
    turns: tuple[Turn, ...] = ()
    usage: Usage = field(default_factory=Usage)
    rejected: Counter[str] = field(default_factory=Counter)
    ended: str | None = None
    cut: bool = False
    """The last of `turns` was ended by the token limit."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over a run: conversations by reason (None: unfinished), turns, tokens, rejected attempts by reason."""

    reasons: Counter[str | None]
    turns: int
    cut: int
    """Turns that the token limit ended."""
    by_role: dict[str, Usage]
    rejected: Counter[str]

    @property
    def usage(self) -> Usage:
        """Tokens of both sides."""
        return sum(self.by_role.values(), Usage())

    def cost(self, prices: Mapping[str, tuple[float, float]]) -> float:
        """Money, at prices by side per million prompt and sampled tokens."""
        return sum(
            (self.by_role[role].prompt_tokens * price_in + self.by_role[role].sampled_tokens * price_out) / 1e6
            for role, (price_in, price_out) in prices.items()
            if role in self.by_role
        )
