"""Does the simulator stop where people stopped? Precision, recall and F1 of the end decision, and a rule to beat.

Decisions are the openings of user turns after the first, in whole human conversations: with K rounds there are K, and
people ended at the last one. The sampled decision is drawn with the model's own probability.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.intervals import Measurement, bootstrap, ratio
from selfplay.chat.conversation import Conversation
from selfplay.seeds import unit_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BINS = 10
GOODBYE = re.compile(
    r"\b(good ?bye|bye|farewell|(that|this)('s| is|s| will be| would be) (all|it|everything)|see you|take care"
    r"|have a (great|good|nice|wonderful|lovely|fantastic|pleasant)|enjoy (your|the))\b",
    re.IGNORECASE,
)
"""Words of leave-taking, by either side."""


@dataclass(frozen=True, slots=True)
class EndScore:
    """The end decision against where people stopped."""

    precision: Measurement
    recall: Measurement
    f1: Measurement


def sampled_ends(conversations: Sequence[Conversation], probabilities: Sequence[Sequence[float]]) -> list[list[bool]]:
    """Draw each decision once with its probability; named draws, so the same data gives the same ones."""
    return [
        [unit_interval("end", conversation.id, number) < p for number, p in enumerate(decisions)]
        for conversation, decisions in zip(conversations, probabilities, strict=True)
    ]


def goodbye_rule(conversation: Conversation) -> list[bool]:
    """End as soon as the round before held a word of leave-taking."""
    users, answers = conversation.of("user"), conversation.of("assistant")
    return [bool(GOODBYE.search(user) or GOODBYE.search(answer)) for user, answer in zip(users, answers, strict=False)]


def score_ends(conversations: Sequence[Conversation], decisions: Sequence[Sequence[bool]]) -> EndScore:
    """Precision, recall and F1 with intervals over conversations.

    Args:
        conversations: whole ones only, each answered last.
        decisions: one per round each; True = ended there.
    """
    import numpy as np

    assert all(conversation.has_end_target for conversation in conversations), "cut conversations show no ending"
    counts = np.array([_counts(row) for row in decisions], dtype=float)  # (n, 3): hits, false alarms, misses
    return EndScore(
        bootstrap(len(counts), lambda rows: _precision(counts[rows].sum(0))),
        bootstrap(len(counts), lambda rows: _recall(counts[rows].sum(0))),
        bootstrap(len(counts), lambda rows: f1(counts[rows].sum(0))),
    )


def f1_gain(
    conversations: Sequence[Conversation], decisions: Sequence[Sequence[bool]], rule: Sequence[Sequence[bool]]
) -> Measurement:
    """F1 of the decisions minus F1 of a rule on the same conversations, resampled in pairs."""
    import numpy as np

    ours, theirs = (np.array([_counts(row) for row in rows], dtype=float) for rows in (decisions, rule))
    return bootstrap(len(conversations), lambda rows: f1(ours[rows].sum(0)) - f1(theirs[rows].sum(0)))


def calibration(probabilities: Sequence[Sequence[float]]) -> Measurement:
    """Expected calibration error of p(end): |mean p - share ended| over ten bins of equal width, weighted by decisions.

    Source: Guo et al. (arXiv:1706.04599). One list per whole conversation, whose last decision is the end.
    """
    import numpy as np

    counts = np.zeros((len(probabilities), _BINS, 2))  # (n, bins, [decisions, p minus outcome])
    for row, decisions in zip(counts, probabilities, strict=True):
        for number, p in enumerate(decisions, start=1):
            row[min(int(p * _BINS), _BINS - 1)] += 1, p - (number == len(decisions))
    decisions_in_all = counts[..., 0].sum(axis=1)

    def error(rows: NDArray[np.intp]) -> float:
        return float(np.abs(counts[rows, :, 1].sum(axis=0)).sum() / decisions_in_all[rows].sum())

    return bootstrap(len(counts), error)


def brier(probabilities: Sequence[Sequence[float]]) -> Measurement:
    """Mean squared difference of p(end) and what happened (Brier, 1950), over decisions."""
    import numpy as np

    errors = [[(p - (number == len(row))) ** 2 for number, p in enumerate(row, start=1)] for row in probabilities]
    return ratio(np.array([sum(row) for row in errors]), np.array([len(row) for row in errors], dtype=float))


def _counts(decisions: Sequence[bool]) -> tuple[int, int, int]:
    *before, last = decisions
    return int(last), sum(before), int(not last)


def _precision(counts: NDArray[np.float64]) -> float:
    return float(counts[0] / max(counts[0] + counts[1], 1))


def _recall(counts: NDArray[np.float64]) -> float:
    return float(counts[0] / max(counts[0] + counts[2], 1))


def f1(counts: Any) -> float:
    """Harmonic mean of precision and recall from (hits, false alarms, misses)."""
    hits, false_alarms, misses = counts
    return float(2 * hits / max(2 * hits + false_alarms + misses, 1))
