"""Reader, writer and generator of model answers, in FastChat's `model_answer/MODEL.jsonl`.

It knows nothing of judges, and nothing of how a model runs (`selfplay.serve`).

A row: {question_id, answer_id, model_id, choices: [{index, turns: [text ...]}], tstamp}. The text of a
turn without an answer is FastChat's $ERROR$, and its choice gives the cause in `errors`; turns that ran out of tokens
are listed in `cut`. Both keys are additions to FastChat's layout and exist only where there is something to record.
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
    """One try at a question.

    Attributes:
        turns: the answers, one for each turn of the question.
        errors: why a turn has no answer, by the number of the turn, counted from 1.
        cut: the numbers of the turns that ran out of tokens.
    """

    turns: tuple[str, ...]
    errors: Mapping[int, str] = field(default_factory=dict)
    cut: tuple[int, ...] = ()


Answers = dict[int | str, list[Choice]]
"""The choices of one model by question id."""


def read_answers(path: Path, questions: Sequence[Question] = ()) -> Answers:
    """Read the answers in a file.

    The layout of a row is FastChat's, that of the first Vicuna-Bench ({question_id, text}) or AlpacaEval's
    ({instruction, output}).

    Args:
        questions: the questions that AlpacaEval's answers are matched with, by their text; its rows carry no id, and a
            row that matches no question is skipped.

    Raises:
        DataError: a row is not an answer.
    """
    by_text = {question.turns[0]: question.id for question in questions}
    answers: Answers = {}
    for place, row in placed_rows(path) if path.suffix == ".jsonl" else rows_of(path):
        try:
            if "choices" in row:
                answers[row["question_id"]] = choices_of(row)
            elif "text" in row:
                answers[row["question_id"]] = [Choice((str(row["text"]),))]
            elif row["instruction"] in by_text:
                answers[by_text[row["instruction"]]] = [Choice((str(row["output"]),))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{place}: no answer ({type(error).__name__} {error}); expected "
                "{question_id, model_id, choices: [{index, turns: [text ...]}]}"
            ) from error
    return answers


def choices_of(row: Row) -> list[Choice]:
    """Parse the choices of a row in FastChat's layout.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the row has another layout.
    """
    if not row["choices"]:
        raise ValueError("no choices")
    return [_choice(choice) for choice in row["choices"]]


def answer_row(question: int | str, model: str, choices: Sequence[Choice]) -> Row:
    """Build the row of an answer as FastChat writes it, with its keys in FastChat's order."""
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
    causes = {int(turn): str(cause) for turn, cause in row.get("errors", {}).items()}
    errors = {turn: causes.get(turn, "error") for turn, text in enumerate(turns, start=1) if text == ERROR}
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
    """Result of `answer_all`: how many questions were asked, how many were answered before, and the tokens spent."""

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
    """Answer the questions that have no answer yet, all of them concurrently.

    The row of a question is written when its last turn is done.

    Raises:
        BackendError: the engine or the server is gone. The rows that were written stay; the same command continues
            with the other questions.
    """
    pending = unanswered(questions, read_answers(file.path), repeats)
    done = Answering(known=len(questions) - len(pending))

    async def answer(question: Question) -> None:
        sampler = model.sampler(Sampling(temperature=chosen.temperature(question), max_tokens=max_tokens))
        tries = await asyncio.gather(*(_answer(question, sampler, seed, index) for index in range(repeats)))
        done.asked += 1
        done.usage = sum((usage for _, usage in tries), done.usage)
        file.append(answer_row(question.id, model.name, [choice for choice, _ in tries]))
        on_done()

    await run_all(map(answer, pending))
    order = {question.id: number for number, question in enumerate(questions)}
    file.sort_and_dedup(lambda row: row["question_id"], lambda row: order.get(row["question_id"], len(order)))
    return done


def unanswered(questions: Sequence[Question], answers: Answers, repeats: int) -> list[Question]:
    """The questions that have too few tries, or a try that failed for a cause that may not occur again."""
    return [question for question in questions if not _settled(answers.get(question.id, []), repeats)]


def _settled(choices: Sequence[Choice], repeats: int) -> bool:
    causes = {cause for choice in choices for cause in choice.errors.values()}
    # A full context fails again in the same way, and so do the turns after it; every other cause may not occur again.
    return len(choices) >= repeats and causes <= {CONTEXT_FULL, NO_FIRST_ANSWER}


async def _answer(question: Question, sampler: Sampler, seed: int, index: int) -> tuple[Choice, Usage]:
    """One try at a question: the model sees its own answers to the earlier turns."""
    messages: list[Turn] = []
    for asked, answered in question.history:
        messages += [Turn("user", asked, "fixed"), Turn("assistant", answered, "fixed")]
    turns: list[str] = []
    errors: dict[int, str] = {}
    cut: list[int] = []
    usage = Usage()
    drawn = derive_seed(seed, str(question.id), index)
    for number, text in enumerate(question.turns, start=1):
        messages.append(Turn("user", text, "fixed"))
        cause: str | None = NO_FIRST_ANSWER if errors else None
        if cause is None:
            try:
                sampled = await sampler.sample(messages, drawn, 0)
            except RequestError as error:
                sampled, cause = None, failed(error.cause)
            if sampled is None:
                cause = cause or CONTEXT_FULL
            else:
                usage += sampled.usage
                messages.append(sampled.turn)
                turns.append(sampled.turn.content)
                cut += [number] if sampled.cut else []
        if cause is not None:
            errors[number] = cause
            turns.append(ERROR)
    return Choice(tuple(turns), errors, tuple(cut)), usage
