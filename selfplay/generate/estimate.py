"""What a long run will take, from the first conversations of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, pstdev

from selfplay.errors import SelfplayError
from selfplay.store.records import Totals


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run foreseen. `spread`: relative half-width of a 95 % interval around every figure that grows with turns."""

    conversations: int
    measured: int
    """Conversations of the pilot."""
    turns: float
    sampled_tokens: dict[str, float]
    """By side."""
    prompt_tokens: dict[str, float]
    start_seconds: float
    seconds: float
    """At the pilot's pace; a longer run has more conversations in flight and is rarely slower."""
    disk_bytes: float
    cost: float
    spread: float


def forecast(
    conversations: int,
    turns: Sequence[int],
    totals: Totals,
    start_seconds: float,
    seconds: float,
    disk_bytes: int,
    prices: dict[str, tuple[float, float]],
) -> Forecast:
    """Scale what a pilot took, all of whose conversations were played to their end, to a whole run.

    Args:
        turns: of each conversation of the pilot.
        start_seconds: until the first conversation could begin.
        seconds: from then on.
        disk_bytes: of the pilot's file.
        prices: by side, money per million prompt and sampled tokens.

    Raises:
        SelfplayError: no conversation has ended.
    """
    if not turns or not sum(turns):
        raise SelfplayError("nothing to foresee from: no conversation of the pilot has ended")
    scale = conversations / len(turns)
    return Forecast(
        conversations=conversations,
        measured=len(turns),
        turns=sum(turns) * scale,
        sampled_tokens={role: usage.sampled_tokens * scale for role, usage in totals.by_role.items()},
        prompt_tokens={role: usage.prompt_tokens * scale for role, usage in totals.by_role.items()},
        start_seconds=start_seconds,
        seconds=seconds * scale,
        disk_bytes=disk_bytes * scale,
        cost=totals.cost(prices) * scale,
        spread=1.96 * pstdev(turns) / mean(turns) / math.sqrt(len(turns)),
    )
