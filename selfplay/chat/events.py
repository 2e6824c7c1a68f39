"""What the runner tells whoever watches. Events are facts that are already committed."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.chat.speakers import Usage


@dataclass(frozen=True, slots=True)
class Planned:
    """A run is open: conversations in all, and those already finished (more than none on resuming)."""

    conversations: int
    finished: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A conversation started or was taken up again."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """An engine was asked and the outcome stored: a turn, or (turn_taken False) that there is none."""

    usage: Usage
    turn_taken: bool


@dataclass(frozen=True, slots=True)
class ConversationEnded:
    """A conversation has its reason."""

    reason: str
    rounds: int
    in_flight: int


Event = Planned | Admitted | Sampled | ConversationEnded
