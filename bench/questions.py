"""Question files of benchmarks, in FastChat's layout: JSON lines {question_id, category, turns: [text ...]}.

Arena-Hard's turns are {content}. The files stay where they are: no question is part of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selfplay.data.reading import read_batches
from selfplay.errors import BadRow, DataError


class Question(NamedTuple):
    """One question and its turns."""

    id: str
    category: str
    turns: tuple[str, ...]


def read_questions(path: Path) -> list[Question]:
    """All questions of a file.

    Raises:
        DataError: unreadable, empty, or a line that is no question (with its place).
    """
    found = []
    for batch in read_batches(path):
        for row in batch.rows():
            try:
                found.append(_question(row.value()))
            except BadRow as error:
                raise DataError(f"{row.place}: {error}") from error
    if not found:
        raise DataError(f"{path}: holds no question; expected JSON lines {{question_id, category, turns}}")
    return found


def _question(row: Any) -> Question:
    turns = row.get("turns") if isinstance(row, Mapping) else None
    texts = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns or ()]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRow("no question; expected {question_id, category, turns: [text ...]}")
    return Question(str(row.get("question_id", "")), str(row.get("category", "")), tuple(map(str, texts)))
