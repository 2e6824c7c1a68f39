"""Health limits of a loop: metrics of each iteration beside people's and the first iteration's.

Models that learn from their own output lose rare words first, then variety, then sense (Shumailov et al. 2024); every
figure may look fine beside the last iteration's and be far from the first one's, so it is compared with that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from selfplay.loop.config import Limit
from selfplay.loop.metrics import IterationMetrics, MetricValue, number

_OF = {None: "", "human": " of people's", "first_iteration": " of the first"}


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """A limit looked at in one iteration. `measured` is the figure or the ratio that is limited."""

    iteration: int
    limit: Limit
    measured: float
    value: MetricValue
    against: float | None

    @property
    def alarm(self) -> bool:
        """Whether it is past its limit."""
        low, high = self.limit.min, self.limit.max
        if not isfinite(self.measured):
            return True
        return (low is not None and self.measured < low) or (high is not None and self.measured > high)

    def __str__(self) -> str:
        limit = self.limit
        beside = "" if self.against is None else f" ({number(self.value.value)}, {number(self.against)})"
        told = f"{limit.metric} is {self.measured:.3g}{_OF[limit.relative_to]}{beside}"
        if limit.min is not None and self.measured < limit.min:
            return f"{told}, below its minimum, {limit.min:g}"
        if limit.max is not None and self.measured > limit.max:
            return f"{told}, above its maximum, {limit.max:g}"
        return told


def check_limits(found: Mapping[int, IterationMetrics], limits: Sequence[Limit]) -> list[LimitCheck]:
    """Every limit on every iteration that has its figure, and what it is compared with."""
    checked = []
    for iteration, figures in sorted(found.items()):
        for limit in limits:
            value = figures.get(limit.metric)
            if value is None:
                continue
            against = _against(found, iteration, limit)
            if limit.relative_to is None:
                checked.append(LimitCheck(iteration, limit, value.value, value, None))
            elif against:
                checked.append(LimitCheck(iteration, limit, value.value / against, value, against))
    return checked


def alarms(checked: Sequence[LimitCheck], iteration: int) -> list[LimitCheck]:
    """What is past its limit in one iteration, what stops the loop first."""
    found = [one for one in checked if one.iteration == iteration and one.alarm]
    return sorted(found, key=lambda one: one.limit.action != "stop")


def unchecked(found: Mapping[int, IterationMetrics], limits: Sequence[Limit], iteration: int) -> list[str]:
    """Figures whose limits could not be looked at in an iteration that has been measured."""
    if not iteration:  # the assistant alone
        return []
    names = dict.fromkeys(limit.metric for limit in limits)
    return [name for name in names if name not in found.get(iteration, {})]


def _against(found: Mapping[int, IterationMetrics], iteration: int, limit: Limit) -> float | None:
    """People's figure, or that of the first iteration that has it; None where there is none before this one."""
    if limit.relative_to == "human":
        return found[iteration][limit.metric].people
    first = min(number for number, figures in found.items() if limit.metric in figures)
    return found[first][limit.metric].value if first < iteration else None
