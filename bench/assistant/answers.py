"""Answers of models in FastChat's `model_answer/MODEL.jsonl`, and how they come about.

A row: {question_id, answer_id, model_id, choices: [{index, turns: [text ...]}], tstamp}. A turn without an answer holds
FastChat's $ERROR$, and its choice says why in `errors`; turns that ran out of tokens are listed in `cut`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.assistant.jsonl import Row, RowFile, placed_rows
from bench.assistant.sets import QuestionSet
from bench.questions import Question, rows_of
from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import CONTEXT_FULL, Usage, failed
from selfplay.errors import DataError, RequestError
from selfplay.seeds import derive_seed
from selfplay.serve.chat_model import ChatModel
from selfplay.serve.config import Sampling
from selfplay.serve.run_all import run_all
from selfplay.serve.turns import Sampler

ERROR = "$ERROR$"
NO_FIRST_ANSWER = "no_first_answer"


@dataclass(frozen=True, slots=True)
class Choice:
    """One try at a question. `errors`: why a turn (from 1 on) has no answer; `cut`: turns that ran out of tokens."""

    turns: tuple[str, ...]
    errors: Mapping[int, str] = field(default_factory=dict)
    cut: tuple[int, ...] = ()


Answers = dict[int | str, list[Choice]]
"""Choices by question id."""


def read_answers(path: Path, questions: Sequence[Question] = ()) -> Answers:
    """Answers of a file: FastChat's, Vicuna-Bench's first ({question_id, text}), AlpacaEval's ({instruction, output}).

    Args:
        questions: what AlpacaEval's answers are matched with, by their text.

    Raises:
        DataError: a row that is no answer.
    """
    by_text = {question.turns[0]: question.id for question in questions}
    found: Answers = {}
    for place, row in placed_rows(path) if path.suffix == ".jsonl" else rows_of(path):
        try:
            if "choices" in row:
                found[row["question_id"]] = choices_of(row)
            elif "text" in row:
                found[row["question_id"]] = [Choice((str(row["text"]),))]
            elif row["instruction"] in by_text:
                found[by_text[row["instruction"]]] = [Choice((str(row["output"]),))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{place}: no answer ({type(error).__name__} {error}); expected "
                "{question_id, model_id, choices: [{index, turns: [text ...]}]}"
            ) from error
    return found


def choices_of(row: Row) -> list[Choice]:
    """The choices of a row in FastChat's layout.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it has another one.
    """
    if not row["choices"]:
        raise ValueError("no choices")
    return [_choice(choice) for choice in row["choices"]]


def answer_row(question: int | str, model: str, choices: Sequence[Choice]) -> Row:
    """An answer as FastChat writes it, its keys in FastChat's order."""
    return {
        "question_id": question,
        "answer_id": uuid4().hex[:22],
        "model_id": model,
        "choices": [_choice_row(index, choice) for index, choice in enumerate(choices)],
        "tstamp": time.time(),
    }


def _choice(row: Any) -> Choice:
    turns = tuple(row["turns"])
    if not isinstance(row["turns"], list) or not turns or not all(isinstance(text, str) for text in turns):
        raise ValueError("turns are no list of texts")
    told = {int(turn): str(cause) for turn, cause in row.get("errors", {}).items()}
    errors = {turn: told.get(turn, "error") for turn, text in enumerate(turns, start=1) if text == ERROR}
    return Choice(turns, errors, tuple(row.get("cut", ())))


def _choice_row(index: int, choice: Choice) -> Row:
    row: Row = {"index": index, "turns": list(choice.turns)}
    if choice.errors:
        row["errors"] = {str(turn): cause for turn, cause in choice.errors.items()}
    if choice.cut:
        row["cut"] = list(choice.cut)
    return row


@dataclass(slots=True)
class Answering:
    """What answering one model's questions came to."""

    asked: int = 0
    known: int = 0
    usage: Usage = field(default_factory=Usage)


async def answer_all(
    chosen: QuestionSet,
    questions: Sequence[Question],
    file: RowFile,
    model: ChatModel,
    *,
    repeats: int,
    max_tokens: int,
    seed: int,
    on_done: Callable[[], None] = lambda: None,
) -> Answering:
    """Answer what is not answered yet, all questions at once; a question's row is written when its last turn is done.

    Raises:
        BackendError: the engine or the server is gone; rows written stay, the same command goes on with the others.
    """
    owed = unanswered(questions, read_answers(file.path), repeats)
    done = Answering(known=len(questions) - len(owed))

    async def answer(question: Question) -> None:
        sampler = model.sampler(Sampling(temperature=chosen.temperature(question), max_tokens=max_tokens))
        tries = await asyncio.gather(*(_answer(question, sampler, seed, index) for index in range(repeats)))
        done.asked += 1
        done.usage = sum((usage for _, usage in tries), done.usage)
        file.append(answer_row(question.id, model.name, [choice for choice, _ in tries]))
        on_done()

    await run_all(map(answer, owed))
    order = {question.id: number for number, question in enumerate(questions)}
    file.sort_and_dedup(lambda row: row["question_id"], lambda row: order.get(row["question_id"], len(order)))
    return done


def unanswered(questions: Sequence[Question], known: Answers, repeats: int) -> list[Question]:
    """The questions that have too few tries, or one that failed for a cause that may pass."""
    return [question for question in questions if not _settled(known.get(question.id, []), repeats)]


def _settled(choices: Sequence[Choice], repeats: int) -> bool:
    causes = {cause for choice in choices for cause in choice.errors.values()}
    return len(choices) >= repeats and causes <= {CONTEXT_FULL, NO_FIRST_ANSWER}


async def _answer(question: Question, sampler: Sampler, seed: int, index: int) -> tuple[Choice, Usage]:
    """One try: each turn after the model's own answers to those before."""
    said: list[Turn] = []
    for asked, answered in question.history:
        said += [Turn("user", asked, "fixed"), Turn("assistant", answered, "fixed")]
    turns: list[str] = []
    errors: dict[int, str] = {}
    cut: list[int] = []
    usage = Usage()
    drawn = derive_seed(seed, str(question.id), index)
    for number, text in enumerate(question.turns, start=1):
        said.append(Turn("user", text, "fixed"))
        cause: str | None = NO_FIRST_ANSWER if errors else None
        if cause is None:
            try:
                sampled = await sampler.sample(said, drawn, 0)
            except RequestError as error:
                sampled, cause = None, failed(error.cause)
            if sampled is None:
                cause = cause or CONTEXT_FULL
            else:
                usage += sampled.usage
                said.append(sampled.turn)
                turns.append(sampled.turn.content)
                cut += [number] if sampled.cut else []
        if cause is not None:
            errors[number] = cause
            turns.append(ERROR)
    return Choice(tuple(turns), errors, tuple(cut)), usage
