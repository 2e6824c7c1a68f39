"""Reader of benchmark question files: FastChat, Arena-Hard, AlpacaEval and MT-Bench-101.

No question is part of this package; the files are read where they are. The module does not know where that is
(`bench.assistant.sets`).

The layout of a row is recognised by its keys:
    FastChat        {question_id, category, turns: [text ...], reference?: [text ...], required_temperature?}
    Arena-Hard      the same with turns of {content}
    AlpacaEval      {instruction, dataset}
    MT-Bench-101    {task, id, history: [{user, bot} ...]}: each user turn is a question after the rounds before it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.data.reading import read_batches
from selfplay.errors import BadRow, DataError

_EXPECTED = "expected {question_id, category, turns: [text ...]}"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: the id of the question, unique in its file.
        category: the category of the question; empty if it has none.
        turns: the user turns, asked one after the other; the model sees its own answers between them.
        history: the (user, assistant) rounds that precede the question and are part of it.
        temperature: the temperature of its answers, if the question requires one.
    """

    id: int | str
    category: str
    turns: tuple[str, ...]
    history: tuple[tuple[str, str], ...] = ()
    temperature: float | None = None


def read_questions(path: Path) -> list[Question]:
    """Read all questions of a file.

    Raises:
        DataError: the file is unreadable or empty, a line is not a question (the message gives its place), or an id
            occurs twice.
    """
    by_id: dict[int | str, Question] = {}
    for number, (place, row) in enumerate(rows_of(path), start=1):
        try:
            questions = list(_questions(row, number))
        except BadRow as error:
            raise DataError(f"{place}: {error}") from error
        for question in questions:
            if question.id in by_id:
                raise DataError(f"{place}: question id {question.id!r} comes twice; ids have to differ")
            by_id[question.id] = question
    if not by_id:
        raise DataError(f"{path}: holds no question; {_EXPECTED}, a line each")
    return list(by_id.values())


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Read the rows of a file, each with its place.

    Raises:
        DataError: the file is unreadable, or a line is not JSON (the message gives its place).
    """
    for batch in read_batches(path):
        for row in batch.rows():
            try:
                yield row.place, row.value()
            except BadRow as error:
                raise DataError(f"{row.place}: {error}") from error


def _questions(row: Any, number: int) -> Iterator[Question]:
    if not isinstance(row, Mapping):
        raise BadRow(f"no question; {_EXPECTED}")
    for key, read in _SHAPES.items():
        if key in row:
            yield from read(row, number)
            return
    raise BadRow(f"no question: found the keys {', '.join(map(str, row)) or 'none'}; {_EXPECTED}")


def _fastchat(row: Mapping[str, Any], number: int) -> Iterator[Question]:
    turns = row["turns"] if isinstance(row["turns"], list) else []
    texts: list[Any] = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRow(f"turns that are no texts; {_EXPECTED}")
    if not isinstance(row.get("question_id"), int | str):
        raise BadRow(f"no question_id; {_EXPECTED}")
    temperature = row.get("required_temperature")
    if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
        raise BadRow(f"required_temperature {temperature!r} is no number")
    yield Question(row["question_id"], str(row.get("category", "")), tuple(texts), temperature=temperature)


def _alpaca_eval(row: Mapping[str, Any], number: int) -> Iterator[Question]:
    if not isinstance(row["instruction"], str) or not row["instruction"].strip():
        raise BadRow("the instruction is no text")
    yield Question(number, str(row.get("dataset", "")), (row["instruction"],))


def _mt_bench_101(row: Mapping[str, Any], number: int) -> Iterator[Question]:
    try:
        rounds = [(exchange["user"], exchange["bot"]) for exchange in row["history"]]
    except (TypeError, KeyError) as error:
        raise BadRow("history is no list of {user, bot}") from error
    if not rounds or not all(isinstance(text, str) for exchange in rounds for text in exchange):
        raise BadRow("history is no list of {user, bot} with texts")
    for at, (asked, _) in enumerate(rounds):
        name = f"{row.get('task', '')}-{row.get('id', number)}-{at + 1}"
        yield Question(name, str(row.get("task", "")), (asked,), tuple(rounds[:at]))


_SHAPES: dict[str, Callable[[Mapping[str, Any], int], Iterator[Question]]] = {
    "turns": _fastchat,
    "instruction": _alpaca_eval,
    "history": _mt_bench_101,
}
