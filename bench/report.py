"""Score sheets on paper: the rows as Markdown and JSON, with conversations as they came."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.nano import Sheet, tables
from selfplay.chat.conversation import Conversation

SHOWN = 10
"""Conversations printed in full, the first ones of the run."""


def write_report(out: Path, sheets: Sequence[Sheet], free: dict[str, Any], simulated: Sequence[Conversation]) -> None:
    """Write `scores.json` and `scores.md`."""
    out.mkdir(parents=True, exist_ok=True)
    scores = {"human": [asdict(sheet) for sheet in sheets], "free": free}
    (out / "scores.json").write_text(json.dumps(scores, indent=1, default=asdict) + "\n", encoding="utf-8")
    parts = [text for title, header, rows in tables(sheets, free) for text in (f"### {title}", _table(header, rows))]
    parts += ["### The first ten conversations", *(_script(c) for c in simulated[:SHOWN])]
    (out / "scores.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _script(conversation: Conversation) -> str:
    """One conversation as a block of text, fenced by more backticks than it holds, so that nothing in it is markup."""
    text = "\n".join(f"{turn.role}: {turn.content}" for turn in conversation.turns)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{conversation.id} ({conversation.ended})\n{text}\n{fence}"
