"""Preparation of a judged benchmark: checks of the set, the models and the judge, and the estimate of its cost.

Everything that can be wrong is found here, before a model or a judge is asked anything. Nothing is generated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import JudgeConfig
from selfplay.errors import ConfigError, DataError, ModelError
from selfplay.serve.chat_model import is_here, model_name
from selfplay.serve.config import JUDGE_KEY, is_url

if TYPE_CHECKING:
    from bench.assistant.answers import Answers
    from bench.assistant.matches import Match, MatchPlan
    from bench.assistant.sets import QuestionSet, SetFiles
    from bench.questions import Question

Say = Callable[[str], None]
VERDICT_TOKENS, ANSWER_TOKENS = 200, 300
"""Estimated tokens of a verdict, and of an answer that does not exist yet."""
TOKEN_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A question set whose files, prompts, names and judge have been checked."""

    files: SetFiles
    questions: list[Question]
    prompts: Mapping[str, Mapping[str, Any]]
    references: Answers | None
    folder: Path
    baseline: str | None
    """The baseline model; None in every mode but pairwise-baseline."""
    judge: str
    """The name of the judge in files; empty without a judge."""

    @property
    def set(self) -> QuestionSet:
        """The question set."""
        return self.files.set


def prepare_benchmark(config: JudgeConfig, out: Path, say: Say) -> Benchmark:
    """Read the question set and check that it fits the settings, before anything is generated.

    Raises:
        ConfigError, DataError: the set, its files or the judge cannot be used with these settings.
    """
    from bench.assistant.answers import read_answers
    from bench.assistant.sets import DEFAULT_TEMPERATURE, open_set

    files = open_set(config.set, config.data)
    chosen, questions = files.set, files.questions()
    baseline = config.baseline or chosen.baseline
    if config.mode == "pairwise-baseline" and baseline is None:
        raise ConfigError(f"{chosen.title} has no baseline of its own; name one with --baseline")
    unknown = {q.category for q in questions if q.temperature is None and q.category not in chosen.temperatures}
    if unknown and config.models:
        say(f"no temperature for {', '.join(sorted(unknown)) or 'no category'}: {DEFAULT_TEMPERATURE} is taken")
    prompts, references, judge = {}, None, ""
    if config.judge is not None:
        prompts = files.judge_prompts()
        if config.reference and any(q.category in chosen.needs_reference for q in questions):
            references = read_answers(files.find(chosen.references, "reference answers"))
        judge = asyncio.run(model_name(config.judge, config.judge_endpoint, JUDGE_KEY))
    against = baseline if config.mode == "pairwise-baseline" else None
    benchmark = Benchmark(files, questions, prompts, references, out / chosen.name, against, judge)
    if judge:
        _prove(config, benchmark)
    return benchmark


def _prove(config: JudgeConfig, benchmark: Benchmark) -> None:
    """Check the judge prompts by filling each of them once with placeholder answers.

    Raises:
        DataError: a prompt or a reference answer is missing, or a prompt cannot be filled or answered in JSON.
    """
    from bench.assistant.matches import plan_matches
    from bench.assistant.verdicts import schema_of

    made_up = _made_up(benchmark.questions)
    trial = plan_matches(
        benchmark.set, benchmark.questions, {"one": made_up, "other": made_up}, benchmark.references,
        benchmark.prompts, config.mode, "other",
    )  # fmt: skip
    for form in {match.format for match in trial.matches} if config.structured else ():
        schema_of(form)


def _made_up(questions: Sequence[Question]) -> Answers:
    from bench.assistant.answers import Choice

    text = "x" * TOKEN_CHARACTERS * ANSWER_TOKENS
    return {question.id: [Choice((text,) * len(question.turns))] for question in questions}


def resolve_models(config: JudgeConfig, benchmark: Benchmark) -> dict[str, str]:
    """Resolve where the answers of each model come from: a model folder, a URL, published answers, or an existing file.

    Raises:
        ModelError: the answers of a model come from none of these.
    """
    baseline = benchmark.baseline
    asked = {**config.models, **({baseline: baseline} if baseline and baseline not in config.models else {})}
    for name, where in asked.items():
        path = answer_file(benchmark.folder, name)
        if not (is_url(where) or is_here(where) or where in benchmark.set.answers or path.exists()):
            published = f"; published are {', '.join(benchmark.set.answers)}" if benchmark.set.answers else ""
            raise ModelError(
                f"{name}: {where!r} is no model folder and no URL, and {path} does not exist{published}; give "
                "NAME=FOLDER or NAME=URL, or put its answers there"
            )
    return asked


def answer_file(folder: Path, model: str) -> Path:
    """The path of the file with a model's answers.

    Raises:
        ConfigError: the name of the model cannot be a file name.
    """
    if not model or "/" in model or model.startswith("."):
        raise ConfigError(f"{model!r} cannot name a file of answers; give another, as in NAME=FOLDER")
    return folder / "model_answer" / f"{model}.jsonl"


def plan_judgments(config: JudgeConfig, benchmark: Benchmark, say: Say, guess: bool = False) -> MatchPlan:
    """Plan the judgments to be made; missing answers and answers to other questions are reported through `say`.

    Args:
        guess: use placeholder answers where there are none yet, to estimate the cost.

    Raises:
        DataError: too few models have answers.
    """
    from bench.assistant.answers import read_answers
    from bench.assistant.matches import plan_matches

    folder, baseline = benchmark.folder / "model_answer", benchmark.baseline
    names = list(config.models) or sorted(path.stem for path in folder.glob("*.jsonl"))
    names += [baseline] if baseline and baseline not in names else []
    files = {name: answer_file(benchmark.folder, name) for name in names}
    answers = {name: read_answers(path) if path.exists() else {} for name, path in files.items()}
    if guess:
        answers = {name: {**_made_up(benchmark.questions), **model_answers} for name, model_answers in answers.items()}
    answers = {name: model_answers for name, model_answers in answers.items() if model_answers}
    if len(answers) < (1 if config.mode == "single" else 2):
        raise DataError(
            f"{folder}: answers of {', '.join(answers) or 'no model'}; --mode {config.mode} needs "
            f"{'one model' if config.mode == 'single' else 'two models'} or more, give --model"
        )
    plan = plan_matches(
        benchmark.set, benchmark.questions, answers, benchmark.references, benchmark.prompts, config.mode, baseline
    )
    for name in answers:
        if plan.missing[name]:
            say(f"{name}: {plan.missing[name]:,} questions have no answer and are not judged")
        if plan.foreign[name]:
            say(f"{name}: {plan.foreign[name]:,} answers are to questions that are not in the set; left out")
    if plan.no_second:
        say(f"{plan.no_second:,} questions have no second turn; their first alone is judged")
    return plan


def say_cost(config: JudgeConfig, benchmark: Benchmark, models: Mapping[str, str], say: Say) -> None:
    """Report what a run would ask; an answer that does not exist yet is estimated at 300 tokens."""
    from bench.assistant.answers import read_answers, unanswered
    from bench.assistant.jsonl import read_rows
    from bench.assistant.judge import unjudged

    for name, where in models.items():
        path = answer_file(benchmark.folder, name)
        answers = read_answers(path) if path.exists() else {}
        pending = unanswered(benchmark.questions, answers, config.repeats) if is_url(where) or is_here(where) else []
        say(f"{name}: {len(pending):,} of {len(benchmark.questions):,} questions to answer")
    if benchmark.judge:
        matches = plan_judgments(config, benchmark, say, guess=True).matches
        path = judgment_file(benchmark, config.mode)
        rows = read_rows(path) if path.exists() else []
        say(describe_cost(unjudged(matches, rows, benchmark.judge, config.judge_repeats), config))


def describe_cost(pending: Sequence[Match], config: JudgeConfig) -> str:
    """Describe the estimated cost of judgments that are still to be made."""
    asked = [text for match in pending for text in match.asked]
    verdicts = len(asked) * config.judge_repeats
    prompts = sum(len(text) for text in asked) * config.judge_repeats // TOKEN_CHARACTERS
    sampled = verdicts * VERDICT_TOKENS
    money = cost(config, prompts, sampled)
    priced = f", cost about {money:,.2f}" if money else ""
    return f"{verdicts:,} verdicts to ask for: about {prompts:,} prompt tokens and {sampled:,} sampled ones{priced}"


def judgment_file(benchmark: Benchmark, mode: str) -> Path:
    """The path of the file with a judge's judgments, named as FastChat names it."""
    kind = "single" if mode == "single" else "pair"
    return benchmark.folder / "model_judgment" / f"{benchmark.judge}_{kind}.jsonl"


def cost(config: JudgeConfig, prompt_tokens: int, sampled_tokens: int) -> float:
    """The cost in money, at the prices of the judge's server (for a million tokens)."""
    price = config.judge_endpoint
    return (prompt_tokens * price.input_price + sampled_tokens * price.output_price) / 1e6
