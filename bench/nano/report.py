"""Scores on paper: Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.nano.sheet import Sheet, tables
from bench.tables import fenced, markdown
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


def _script(conversation: Conversation) -> str:
    """One conversation as a block of text."""
    text = "\n".join(f"{turn.role}: {turn.content}" for turn in conversation.turns)
    return fenced(f"{conversation.id} ({conversation.ended})\n{text}")
