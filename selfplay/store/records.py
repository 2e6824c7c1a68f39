"""Records of the run store: what is written to a run and read back from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import Usage


class ForkPoint(NamedTuple):
    """A turn of another conversation, from which a fork goes on."""

    run: str
    conversation: str
    turn: int


@dataclass(frozen=True, slots=True)
class ConversationSpec:
    """A conversation that is to be held: everything known of it before its first turn."""

    number: int
    """Its place in the run, from 0."""
    id: str
    seed: int
    opening: tuple[Turn, ...] = ()
    """The given first turns: a system prompt, the turns of an opening."""
    way: str = "usergpt"
    """How it is made: `usergpt`, a trained simulator; `prompted`, an assistant prompted to play the user."""
    user_context: str | None = None
    """What the user's side alone is shown besides the turns: an intent, a persona."""
    assistant_context: str | None = None
    """What the assistant's side alone is shown besides the turns."""
    plan: Mapping[str, Any] | None = None
    """What it is asked to become, as JSON: rounds, words, styles, spans of a reference."""
    details: Mapping[str, Any] | None = None
    """Where it comes from, as JSON: hash of a prompt, sector, node of a tree."""
    parent: ForkPoint | None = None
    """The conversation it goes on from, of a fork."""


@dataclass(frozen=True, slots=True)
class PendingConversation:
    """A conversation still owed: its plan and the turns already committed, the opening included."""

    spec: ConversationSpec
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class TurnCommit:
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
