"""Rows that gave no conversation: counted by reason, with the first place each reason occurred."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from selfplay.errors import DataError, InvalidConversation


@dataclass(slots=True)
class Rejects:
    """Reason → rows, and reason → `file:line` of the first one."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, error: DataError) -> None:
        """Count under a reason without the row's own names and numbers, so that equal faults add up."""
        reason = error.reason if isinstance(error, InvalidConversation) else str(error)
        reason = re.sub(r"\bturn \d+\b", "a turn", reason)
        reason = re.sub(r" at column \d+", "", reason)
        self.counts[reason] += 1
        self.examples.setdefault(reason, place)

    def summary(self) -> str:
        """The three most frequent reasons."""
        return "; ".join(f"{reason} ({count})" for reason, count in self.counts.most_common(3))

    def merge(self, other: Rejects) -> None:
        """Take a later part's counts in."""
        self.counts.update(other.counts)
        for reason, place in other.examples.items():
            self.examples.setdefault(reason, place)
