"""Plan of a judged benchmark: the judgments to be made, in FastChat's order and with its prompts.

Pure functions: the module reads no file, asks no judge and does not know which judgments exist already (`judge`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.assistant.answers import Answers, Choice
from bench.assistant.jsonl import Row
from bench.assistant.sets import PromptNames, QuestionSet
from bench.assistant.verdicts import fill
from bench.questions import Question
from selfplay.errors import DataError

NO_ANSWER = "no_answer"
"""Cause of a match in which an answer lacks the turn to be judged."""
Mode = Literal["single", "pairwise-baseline", "pairwise-all"]
Prompts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Match:
    """One judgment to be made: of a model's answer, or of two models' (both orders).

    Attributes:
        question: the id of the question.
        models: the model, or the two models that are compared.
        turn: the turn that is judged, 1 or 2.
        choice: the number of the try, counted from 0.
        prompt: the name of the judge prompt.
        format: the output format of the verdict (`verdicts`).
        system: the system prompt of the judge.
        asked: the user prompt; for two models one in each order.
        unanswered: the cause for which there is nothing to judge, or None.
    """

    question: int | str
    models: tuple[str, ...]
    turn: int
    choice: int
    prompt: str
    format: str
    system: str
    asked: tuple[str, ...]
    unanswered: str | None = None

    def key(self, judge: str) -> tuple[Any, ...]:
        """The key that identifies a judgment."""
        return (self.question, *self.models, self.turn, self.choice, judge, self.prompt)


def key_of(row: Row) -> tuple[Any, ...]:
    """The key of a row of a judgment file, equal to `Match.key` of its match."""
    models = (row["model"],) if "model" in row else (row["model_1"], row["model_2"])
    return (row["question_id"], *models, row.get("turn", 1), row.get("choice", 0), *row["judge"])


@dataclass(slots=True)
class MatchPlan:
    """The planned matches, and the counts of what cannot be judged."""

    matches: list[Match] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    """Number of questions without an answer, by model."""
    foreign: Counter[str] = field(default_factory=Counter)
    """Number of answers to questions that are not in the set, by model."""
    no_second: int = 0
    """Number of questions with one turn, in a set where others have two."""


def plan_matches(
    chosen: QuestionSet,
    questions: Sequence[Question],
    answers: Mapping[str, Answers],
    references: Answers | None,
    prompts: Prompts,
    mode: Mode,
    baseline: str | None = None,
) -> MatchPlan:
    """Plan every judgment of a mode.

    Args:
        answers: the answers by model; in pairwise-baseline those of the baseline are among them.
        references: the reference answers; None: the judge sees no reference answer.

    Raises:
        DataError: a reference answer or a judge prompt is missing, or a prompt cannot be filled.
    """
    planned = MatchPlan()
    for model, model_answers in answers.items():
        ids = {question.id for question in questions}
        planned.missing[model] = sum(question.id not in model_answers for question in questions)
        planned.foreign[model] = sum(id not in ids for id in model_answers)
    planned.no_second = sum(len(q.turns) == 1 for q in questions) if any(len(q.turns) > 1 for q in questions) else 0
    names = chosen.single if mode == "single" else chosen.pairwise
    teams = list(_teams(list(answers), mode, baseline))
    for turn in (1, 2):
        for question in questions:
            if len(question.turns) < turn:
                continue
            referred = references is not None and question.category in chosen.needs_reference
            prompt = _prompt(prompts, names, turn, referred)
            values = _question_values(question, turn, _reference(references, question) if referred else None)
            for models in teams:
                if all(question.id in answers[model] for model in models):
                    tries = [answers[model][question.id] for model in models]
                    planned.matches += _of_question(question.id, models, tries, turn, prompt, values)
    return planned


def _teams(models: Sequence[str], mode: Mode, baseline: str | None) -> Iterator[tuple[str, ...]]:
    if mode == "single":
        yield from ((model,) for model in models)
    elif mode == "pairwise-baseline":
        assert baseline is not None
        yield from ((model, baseline) for model in models if model != baseline)
    else:
        yield from ((first, second) for at, first in enumerate(models) for second in models[at + 1 :])


def _prompt(prompts: Prompts, names: PromptNames, turn: int, referred: bool) -> Mapping[str, Any]:
    plain, with_reference = (
        (names.first, names.first_reference) if turn == 1 else (names.second, names.second_reference)
    )
    name = with_reference if referred else plain
    if name not in prompts:
        raise DataError(f"no judge prompt {name!r}; the file has {', '.join(prompts)}")
    return prompts[name]


def _reference(references: Answers | None, question: Question) -> tuple[str, ...]:
    choices = (references or {}).get(question.id)
    if not choices or len(choices[0].turns) < len(question.turns):
        raise DataError(
            f"question {question.id} ({question.category}): no reference answer; add it to the file of references, or "
            "judge without any (--no-reference)"
        )
    return choices[0].turns


def _question_values(question: Question, turn: int, reference: tuple[str, ...] | None) -> dict[str, str]:
    """The fields of a judge prompt that do not depend on answers. The history of a question is part of its text."""
    first = question.turns[0]
    if question.history:
        rounds = [f"User: {asked}\n\nAssistant: {answered}" for asked, answered in question.history]
        first = "\n\n".join([*rounds, f"User: {first}"])
    values = {"question": first} if turn == 1 else {"question_1": first, "question_2": question.turns[1]}
    for number, text in enumerate((reference or ())[:turn], start=1):
        values[f"ref_answer_{number}"] = text
    return values


def _of_question(
    question: int | str,
    models: tuple[str, ...],
    tries: Sequence[Sequence[Choice]],
    turn: int,
    prompt: Mapping[str, Any],
    values: Mapping[str, str],
) -> Iterator[Match]:
    """Plan one match for each try; a model with fewer tries than the other takes part with its last one again."""
    for number in range(max(map(len, tries))):
        chosen = [choices[min(number, len(choices) - 1)] for choices in tries]
        causes = [choice.errors[turn] for choice in chosen if turn in choice.errors]
        short = any(len(choice.turns) < turn for choice in chosen)
        missing = causes[0] if causes else NO_ANSWER if short else None
        orders = [] if missing else [chosen] if len(chosen) == 1 else [chosen, chosen[::-1]]
        asked = tuple(fill(prompt["prompt_template"], {**values, **_answer_values(order, turn)}) for order in orders)
        yield Match(
            question, models, turn, number, str(prompt["name"]), str(prompt["output_format"]),
            str(prompt["system_prompt"]), asked, missing,
        )  # fmt: skip


def _answer_values(order: Sequence[Choice], turn: int) -> dict[str, str]:
    sides = [""] if len(order) == 1 else ["_a", "_b"]
    values = {}
    for side, choice in zip(sides, order, strict=True):
        if turn == 1:
            values[f"answer{side}"] = choice.turns[0]
        else:
            values |= {f"answer{side}_1": choice.turns[0], f"answer{side}_2": choice.turns[1]}
    return values
