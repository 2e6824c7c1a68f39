"""What a long run will take, from the first conversations of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfplay.store.records import Totals


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run foreseen. `spread`: relative half-width of a 95 % interval around every figure that grows with turns."""

    conversations: int
    measured: int
    """Conversations that had ended when the figures were taken."""
    turns: float
    sampled_tokens: dict[str, float]
    """By side."""
    prompt_tokens: dict[str, float]
    start_seconds: float
    seconds: float
    disk_bytes: float
    cost: float
    spread: float


def forecast(
    conversations: int,
    totals: Totals,
    *,
    start_seconds: float,
    seconds: float,
    plan_bytes: int,
    turn_bytes: int,
    prices: dict[str, tuple[float, float]],
) -> Forecast:
    """Scale what a pilot took to a whole run.

    The pilot ends while longer conversations still go on. Turns per conversation are therefore all turns over the
    number of endings, which counts the unfinished ones too (maximum likelihood under a constant hazard).

    Args:
        start_seconds: until the first conversation could begin.
        seconds: from then on.
        plan_bytes, turn_bytes: on disk, for the plan of the whole run and for the pilot's turns.
        prices: by side, money per million prompt and sampled tokens.
    """
    ended = sum(count for reason, count in totals.reasons.items() if reason is not None)
    scale = conversations / max(1, ended)
    sampled = {role: usage.sampled_tokens * scale for role, usage in totals.by_role.items()}
    prompts = {role: usage.prompt_tokens * scale for role, usage in totals.by_role.items()}
    return Forecast(
        conversations=conversations,
        measured=ended,
        turns=totals.turns * scale,
        sampled_tokens=sampled,
        prompt_tokens=prompts,
        start_seconds=start_seconds,
        seconds=seconds * scale,
        disk_bytes=plan_bytes + turn_bytes * scale,
        cost=totals.cost(prices) * scale,
        spread=1.96 / math.sqrt(max(1, ended)),
    )
