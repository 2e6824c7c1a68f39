"""Stopping rules of a loop: a score that gains nothing, or a budget that is spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selfplay.loop.config import StopRules
from selfplay.loop.metrics import IterationMetrics, MetricValue

TOKENS = "tokens"
"""The figure of a stage that says how many tokens it sampled or learned."""
HELD_OUT, GAIN = "bits_per_byte", "gain"


def spent(entries: Iterable[tuple[float, Mapping[str, Any]]]) -> tuple[int, float]:
    """Tokens and hours of stages, given as seconds and figures."""
    tokens, seconds = 0, 0.0
    for took, figures in entries:
        tokens += int(figures.get(TOKENS) or 0)
        seconds += took
    return tokens, seconds / 3600


def out_of_budget(rules: StopRules, tokens: int, hours: float) -> str | None:
    """Which budget is spent."""
    if rules.max_tokens is not None and tokens >= rules.max_tokens:
        return f"stop.max_tokens: {tokens:,} of {rules.max_tokens:,} tokens are spent"
    if rules.max_hours is not None and hours >= rules.max_hours:
        return f"stop.max_hours: {hours:.2f} of {rules.max_hours:g} hours are spent"
    return None


def without_gain(rules: StopRules, found: Mapping[int, IterationMetrics], iteration: int) -> str | None:
    """Whether the chosen score has gained nothing for as many iterations as patience allows."""
    score = rules.no_gain_in
    if score is None:
        return None
    scored = [number for number in sorted(found) if score in found[number] and number <= iteration]
    waited = 0
    for place, number in enumerate(scored[1:], start=1):
        before = [found[earlier][score] for earlier in scored[:place]]
        waited = 0 if _gained(score, found[number], before) else waited + 1
    if waited < rules.patience:
        return None
    now = found[scored[-1]]
    beside = f", gain {now[GAIN]}" if score == HELD_OUT and GAIN in now else ""
    return f"stop.no_gain_in: {score} {now[score]}{beside} is no gain for {waited} iterations"


def _gained(score: str, now: IterationMetrics, before: list[MetricValue]) -> bool:
    """Better than the best before it, beyond the interval; held-out loss by its paired gain."""
    if score == HELD_OUT:
        gain = now.get(GAIN)
        return gain is not None and gain.low is not None and gain.low > 0
    best, low = max(value.value for value in before), now[score].low
    return (now[score].value if low is None else low) > best
