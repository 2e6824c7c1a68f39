"""The protocol of a speaker: one side of a conversation, which says the next turn or ends it.

A protocol is used as a shape, not as a base class: `simulator.speaker` and `assistant.speaker` fit it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selfplay.chat.conversation import Turn

USER_ENDED = "user_ended"
MAX_ROUNDS = "max_rounds"
CONTEXT_FULL = "context_full"


def guardrail(name: str) -> str:
    """The reason of a conversation that ended because a guardrail stayed unmet."""
    return f"guardrail:{name}"


def failed(cause: str) -> str:
    """The reason of a conversation that an error ended."""
    return f"failed:{cause}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens one utterance took, rejected attempts included."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    sampled_tokens: int = 0

    @property
    def cache_hit(self) -> float:
        """Share of prompt tokens that the prefix cache already held."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.sampled_tokens + other.sampled_tokens,
        )


@dataclass(frozen=True, slots=True)
class Utterance:
    """Either the next turn, or (turn None) the reason why there is none. `rejected` counts resampled attempts."""

    turn: Turn | None
    ended: str | None = None
    usage: Usage = field(default_factory=Usage)
    rejected: Counter[str] = field(default_factory=Counter)
    cut: bool = False
    """The token limit ended the turn."""
    context: int = 0
    """Tokens this side's history holds now, the turn included."""


class Speaker(Protocol):
    """One side of a conversation."""

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """The next utterance. Depends on its arguments only, so that a resumed run says the same again.

        A failed request is an utterance without a turn, ended by `failed:<cause>`.

        Raises:
            BackendError: the engine is gone; nothing can go on.
        """
        ...
