"""What every cleaning step did, and the table of it that lies beside the output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.data.refusals import Refusals

_NUMBERS = ("rows_before", "rows_after", "turns_before", "turns_after", "rows_changed", "turns_changed")
HEADER = ("step", *(name.replace("_", " ") for name in _NUMBERS))


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
        """The figures under HEADER, in its order."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def add(self, other: Count) -> None:
        """Take another part's counts in."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)


@dataclass(slots=True)
class Tally:
    """All steps in order; `rows` source rows were read, of which `refused` gave no conversation."""

    rows: int = 0
    refused: Refusals = field(default_factory=Refusals)
    steps: dict[str, Count] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take another part's counts in."""
        self.rows += other.rows
        self.refused.merge(other.refused)
        for name, count in other.steps.items():
            self.steps.setdefault(name, Count()).add(count)

    def table(self) -> list[tuple[str, ...]]:
        """Rows under HEADER; a reason stands under its step with the rows it cost."""
        read = next(iter(self.steps.values()), Count())
        rows: list[tuple[str, ...]] = [
            ("read", f"{self.rows:,}", f"{read.rows_before:,}", "", f"{read.turns_before:,}")
        ]
        rows += [
            (f"  {reason} ({self.refused.examples[reason]})", "", f"-{cost:,}")
            for reason, cost in self.refused.counts.most_common()
        ]
        for name, count in self.steps.items():
            rows.append((name, *(f"{number:,}" for number in count.numbers().values())))
            rows += [(f"  {reason}", "", f"-{cost:,}") for reason, cost in count.reasons.most_common()]
        return [row + ("",) * (len(HEADER) - len(row)) for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain values."""
        refused = {
            reason: {"rows": cost, "first": self.refused.examples[reason]}
            for reason, cost in self.refused.counts.most_common()
        }
        steps = {name: {**count.numbers(), "reasons": dict(count.reasons)} for name, count in self.steps.items()}
        return {"rows": self.rows, "refused": refused, "steps": steps}

    def save(self, out: Path, about: dict[str, Any]) -> None:
        """Write `<out>.report.json` and `<out>.report.md` beside the output."""
        out.with_name(f"{out.name}.report.json").write_text(
            json.dumps({**about, **self.as_dict()}, ensure_ascii=False, indent=1) + "\n"
        )
        out.with_name(f"{out.name}.report.md").write_text(_markdown(HEADER, self.table()))


def _markdown(header: Iterable[str], lines: Iterable[tuple[str, ...]]) -> str:
    rows = [tuple(header), ("---",) + ("---:",) * (len(HEADER) - 1), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
