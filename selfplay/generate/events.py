"""Events of a run, for progress bars, metrics and limits. Events are facts that are already committed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from selfplay.chat.conversation import Role
from selfplay.chat.speakers import Usage


@dataclass(frozen=True, slots=True)
class RunOpened:
    """A run is open: conversations in all, and those already finished (more than none on resuming)."""

    conversations: int
    finished: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A conversation started or was taken up again."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A side was asked for its next turn."""

    role: Role


@dataclass(frozen=True, slots=True)
class Sampled:
    """A side answered and the outcome is stored: a turn, or (turn_taken False) that there is none."""

    role: Role
    usage: Usage
    turn_taken: bool
    rejected: Counter[str]


@dataclass(frozen=True, slots=True)
class EngineRestarted:
    """An engine process had died and is up again; `cause` is what it left behind."""

    name: str
    deaths: int
    cause: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """No further turns are asked for; those in flight are finished. `why` in words."""

    why: str


@dataclass(frozen=True, slots=True)
class ConversationEnded:
    """A conversation has its reason."""

    reason: str
    rounds: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures since this process took the run up; `planned` and `finished` count the whole run. Rates are means."""

    seconds: float
    planned: int
    finished: int
    in_flight: int
    asked: dict[str, int]
    """Turns being sampled now, by side."""
    turns: int
    turns_per_s: float
    tokens: int
    tokens_per_s: float
    cache_hit: float
    kv_free: dict[str, float]
    """Share of each engine's KV memory that no running request holds."""
    reasons: dict[str, int]
    resampled: dict[str, int]
    restarts: int
    faults: dict[str, int]
    """Tries at endpoints that gave no reply, by cause."""


Event = RunOpened | Admitted | Asked | Sampled | ConversationEnded | EngineRestarted | Stopping | Snapshot
