"""Scores on paper: Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.corpus.describe import Described
from bench.nano.sheet import Sheet, tables
from bench.simulator.registry import METRICS
from bench.simulator.scorecard import Scorecard
from bench.tables import Table, cell, fenced, markdown, write_text
from selfplay.chat.conversation import Conversation

SHOWN = 10
"""Conversations printed in full, the first ones of the run."""


def write_report(out: Path, sheets: Sequence[Sheet], free: dict[str, Any], simulated: Sequence[Conversation]) -> None:
    """Write `scores.json` and `scores.md`."""
    out.mkdir(parents=True, exist_ok=True)
    scores = {"human": [asdict(sheet) for sheet in sheets], "free": free}
    (out / "scores.json").write_text(json.dumps(scores, indent=1, default=asdict) + "\n", encoding="utf-8")
    parts = [text for title, header, rows in tables(sheets, free) for text in (f"### {title}", markdown(header, rows))]
    parts += ["### The first ten conversations", *(_script(c) for c in simulated[:SHOWN])]
    (out / "scores.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_scorecard(out: Path, card: Scorecard) -> None:
    """Write `scorecard.json` and `scorecard.md`.

    JSON: {metric: {value, low, high, n, rows: {row: {value, low, high, n}}}}, the figure itself being that of the first
    row that is no people; "left_out": {metric: {row: reason}}; "notes": [...].
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "scorecard.json", json.dumps(scorecard_json(card), indent=1, ensure_ascii=False) + "\n")
    parts = [f"# {card.title}", *(f"- {note}" for note in card.notes)]
    for title, header, rows in scorecard_tables(card):
        parts += [f"\n## {title}\n", markdown(header, rows)]
    if card.left_out:
        parts += ["\n## left out\n", *(f"- {line}" for line in reasons_left_out(card))]
    write_text(out / "scorecard.md", "\n".join(parts) + "\n")


def scorecard_json(card: Scorecard) -> dict[str, Any]:
    """The scorecard as JSON has it; see `write_scorecard`."""
    subject = card.subject
    found: dict[str, Any] = {}
    for metric in METRICS:
        rows = {row: asdict(estimates[metric.name]) for row, estimates in card.rows.items() if metric.name in estimates}
        if rows:
            own = rows.get(subject, {"value": None, "low": None, "high": None, "n": 0})
            found[metric.name] = {**own, "good": metric.good, "rows": rows}
    return {**found, "subject": subject, "left_out": card.left_out, "notes": card.notes}


def scorecard_tables(card: Scorecard, brief: bool = False) -> list[Table]:
    """A table a group of metrics, a column a row of the scorecard; `brief` leaves the intervals out."""
    rows = list(card.rows)
    tables: list[Table] = []
    for group in dict.fromkeys(metric.group for metric in METRICS):
        lines = []
        for metric in METRICS:
            if metric.group == group and any(metric.name in card.rows[row] for row in rows):
                cells = [cell(card.rows[row].get(metric.name), brief) for row in rows]
                lines.append((f"{metric.title} ({metric.good})", *cells))
        if lines:
            kept = [n for n in range(len(rows)) if any(line[n + 1] for line in lines)]
            header = ("metric (good)", *(rows[n] for n in kept))
            tables.append((group, header, [(line[0], *(line[n + 1] for n in kept)) for line in lines]))
    return tables


def reasons_left_out(card: Scorecard) -> list[str]:
    """A line per metric and reason."""
    lines = []
    for metric, reasons in card.left_out.items():
        for reason in dict.fromkeys(reasons.values()):
            rows = [row for row, why in reasons.items() if why == reason]
            lines.append(f"{metric} of {', '.join(rows)}: {reason}")
    return lines


def write_corpora(out: Path, corpora: Sequence[Described], notes: Sequence[str]) -> None:
    """Write `corpus.json` ({"corpora": {corpus: {figure: {value, low, high, n}}}, "notes": [...]}) and `corpus.md`."""
    out.mkdir(parents=True, exist_ok=True)
    found = {
        corpus.name: {name: asdict(figure) for name, figure in corpus.figures.items()}
        | {"dialogues": corpus.dialogues, "refused rows": corpus.refused}
        for corpus in corpora
    }
    told = {"corpora": found, "notes": list(notes)}
    write_text(out / "corpus.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    title, header, rows = corpora_table(corpora)
    lines = [f"# {title}", *(f"- {note}" for note in notes), "", markdown(header, rows)]
    write_text(out / "corpus.md", "\n".join(lines) + "\n")


def corpora_table(corpora: Sequence[Described], brief: bool = False) -> Table:
    """A column a corpus; `brief` leaves the intervals out."""
    names = dict.fromkeys(name for corpus in corpora for name in corpus.figures)
    ordered = sorted(names, key=lambda name: name.startswith(("repeated", "with_")))
    rows: list[tuple[str, ...]] = [("dialogues", *(f"{corpus.dialogues:,}" for corpus in corpora))]
    rows += [(_title(name), *(_figure(corpus, name, brief) for corpus in corpora)) for name in ordered]
    rows.append(("rows that are no conversation", *(f"{corpus.refused:,}" for corpus in corpora)))
    return "corpora", ("figure", *(corpus.name for corpus in corpora)), rows


def _figure(corpus: Described, name: str, brief: bool) -> str:
    """A language that is not among a corpus's first ones has the share 0 in it, or nearly."""
    found = cell(corpus.figures.get(name), brief)
    return found or ("few or none" if name.startswith("language") else "")


def _title(name: str) -> str:
    return "MTLD" if name == "mtld" else name.replace("_", " ")


def _script(conversation: Conversation) -> str:
    """One conversation as a block of text."""
    text = "\n".join(f"{turn.role}: {turn.content}" for turn in conversation.turns)
    return fenced(f"{conversation.id} ({conversation.ended})\n{text}")
