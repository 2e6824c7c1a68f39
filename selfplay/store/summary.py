"""Figures that describe a run: rounds, words, reasons, tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selfplay.chat.conversation import Conversation
from selfplay.store.export import is_failed
from selfplay.store.records import Totals
from selfplay.store.store import open_run


class Spread(NamedTuple):
    """Mean and the 10th and 90th percentile."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in figures; `words` and `rounds` over finished conversations, failed ones left out."""

    conversations: int
    unfinished: int
    rounds: Spread
    words: dict[str, Spread]
    reasons: dict[str, int]
    rejected: Counter[str]
    turns: int
    cut: int
    sampled_tokens: int
    cache_hit: float
    cost: float
    """Money, where prices are known."""


def summarise_run(folder: str | Path) -> RunSummary:
    """A run in figures.

    Raises:
        StoreError: there is no run that can be read.
    """
    with open_run(folder) as run:
        return summarise(run.conversations(), run.totals(), prices_of(run.facts().get("config", {})))


def summarise(
    conversations: Iterable[Conversation], totals: Totals, prices: Mapping[str, tuple[float, float]]
) -> RunSummary:
    """Count a run.

    Args:
        prices: by side, money per million prompt and sampled tokens.
    """
    rounds: list[int] = []
    words: dict[str, list[int]] = {"user": [], "assistant": []}
    for conversation in conversations:
        if conversation.ended is None or is_failed(conversation.ended):
            continue
        rounds.append(conversation.rounds)
        for turn in conversation.turns:
            if turn.role in words:
                words[turn.role].append(len(turn.content.split()))
    return RunSummary(
        conversations=sum(count for reason, count in totals.reasons.items() if reason is not None),
        unfinished=totals.reasons[None],
        rounds=spread(rounds),
        words={role: spread(counts) for role, counts in words.items()},
        reasons={reason or "unfinished": count for reason, count in totals.reasons.items()},
        rejected=totals.rejected,
        turns=totals.turns,
        cut=totals.cut,
        sampled_tokens=totals.usage.sampled_tokens,
        cache_hit=totals.usage.cache_hit,
        cost=totals.cost(prices),
    )


def spread(values: Sequence[int]) -> Spread:
    """Mean and percentiles (nearest rank); zeros when there is nothing."""
    if not values:
        return Spread(0.0, 0.0, 0.0)
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(sum(ordered) / len(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)])


def prices_of(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What a side's tokens cost, by role: money per million prompt and sampled tokens."""
    sides = (("user", "simulator"), ("assistant", "assistant"))
    settings = {role: config.get(side, {}).get("endpoint", {}) for role, side in sides}
    return {role: (one.get("input_price", 0.0), one.get("output_price", 0.0)) for role, one in settings.items()}
