"""Tables and files of a scorecard: `scorecard.json` and `scorecard.md`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.simulator.registry import METRICS
from bench.simulator.scorecard import Scorecard
from bench.tables import Table, cell, markdown, write_text


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
    metrics: dict[str, Any] = {}
    for metric in METRICS:
        rows = {row: asdict(estimates[metric.name]) for row, estimates in card.rows.items() if metric.name in estimates}
        if rows:
            own = rows.get(subject, {"value": None, "low": None, "high": None, "n": 0})
            metrics[metric.name] = {**own, "good": metric.good, "rows": rows}
    return {**metrics, "subject": subject, "left_out": card.left_out, "notes": card.notes}


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
