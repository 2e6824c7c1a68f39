"""The report of a cleaning or curation: counts of every step, and the tables beside the output."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.data.rejects import Rejects
from selfplay.files import replacing

_NUMBERS = ("rows_before", "rows_after", "turns_before", "turns_after", "rows_changed", "turns_changed")


@dataclass(slots=True)
class Count:
    """One step: rows and turns before and after, what it changed, and why rows were left out."""

    rows_before: int = 0
    rows_after: int = 0
    turns_before: int = 0
    turns_after: int = 0
    rows_changed: int = 0
    turns_changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def numbers(self) -> dict[str, int]:
        """The figures by name."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def add(self, other: Count) -> None:
        """Take another part's counts in."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)


@dataclass(slots=True)
class Tally:
    """All steps in order; `rows` source rows were read and became `conversations`, or were `refused`."""

    rows: int = 0
    conversations: int = 0
    turns: int = 0
    refused: Rejects = field(default_factory=Rejects)
    steps: dict[str, Count] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take another part's counts in."""
        self.rows += other.rows
        self.conversations += other.conversations
        self.turns += other.turns
        self.refused.merge(other.refused)
        for name, count in other.steps.items():
            self.steps.setdefault(name, Count()).add(count)

    def left_out(self) -> list[tuple[str, int, str]]:
        """(step, rows, reason) of everything that is not in the output, the most costly first."""
        refused = [
            ("read", cost, f"{reason} (first: {self.refused.examples[reason]})")
            for reason, cost in self.refused.counts.most_common()
        ]
        dropped = [
            (name, cost, reason) for name, count in self.steps.items() for reason, cost in count.reasons.most_common()
        ]
        return sorted(refused + dropped, key=lambda item: -item[1])

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain values."""
        refused = {
            reason: {"rows": cost, "first": self.refused.examples[reason]}
            for reason, cost in self.refused.counts.most_common()
        }
        steps = {name: {**count.numbers(), "reasons": dict(count.reasons)} for name, count in self.steps.items()}
        return {
            "rows": self.rows,
            "conversations": self.conversations,
            "turns": self.turns,
            "refused": refused,
            "steps": steps,
        }

    def save(self, out: Path, about: dict[str, Any]) -> None:
        """Write `<out>.report.json` and `<out>.report.md` beside the output."""
        plain = json.dumps({**about, **self.as_dict()}, ensure_ascii=False, indent=1) + "\n"
        for ending, text in (("json", plain), ("md", self._markdown())):
            with replacing(out.with_name(f"{out.name}.report.{ending}")) as partial:
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")

    def _markdown(self) -> str:
        """One table of steps, one of reasons."""
        steps: list[tuple[str, ...]] = [
            (name, *(f"{number:,}" for number in count.numbers().values())) for name, count in self.steps.items()
        ]
        reasons: list[tuple[str, ...]] = [(name, f"{cost:,}", reason) for name, cost, reason in self.left_out()]
        header = ("step", *(name.replace("_", " ") for name in _NUMBERS))
        return (
            f"{self.rows:,} rows read, {self.conversations:,} conversations of {self.turns:,} turns\n\n"
            + _table(header, ("---",) + ("---:",) * len(_NUMBERS), steps)
            + "\n"
            + _table(("step", "rows left out", "reason"), ("---", "---:", "---"), reasons)
        )


def _table(header: tuple[str, ...], rule: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    rows = [header, rule, *body]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
