"""What `selfplay bench mt-bench` and its like do: answers, verdicts, reports. Every step goes on where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.settings import JudgeConfig
from selfplay.chat.speakers import Usage
from selfplay.errors import ConfigError, DataError, ModelError
from selfplay.served import identity, is_here, served
from selfplay.sides import KEY_VARIABLES, is_url

if TYPE_CHECKING:
    from bench.judgement.answers import Answers
    from bench.judgement.matches import Match, Planned
    from bench.judgement.report import Report
    from bench.judgement.sets import QuestionSet, SetFiles
    from bench.questions import Question

Say = Callable[[str], None]
Begin = Callable[[str, int, int], Callable[[], None]]
"""Called with what begins, how much there is and how much of it is done; what it returns is called with each step."""
JUDGE_KEY = "SELFPLAY_JUDGE_KEY"
VERDICT_TOKENS = 200
"""What a verdict is reckoned at before it is asked for."""
TOKEN_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set made ready: everything that can be wrong with its files has been looked at."""

    files: SetFiles
    questions: list[Question]
    prompts: Mapping[str, Mapping[str, Any]]
    references: Answers | None
    folder: Path

    @property
    def set(self) -> QuestionSet:
        """The set."""
        return self.files.set


def bench_questions(
    config: JudgeConfig,
    out: str | Path,
    *,
    dry_run: bool = False,
    say: Say = print,
    begin: Begin = lambda what, total, done: lambda: None,
) -> list[Report]:
    """Have models answer a question set, have a judge judge the answers, and report; in `out/SET`.

    Args:
        dry_run: say what would be asked and what it would take; ask nothing.

    Returns:
        The reports of this judge in this mode, none without a judge. Those of others are written again too.

    Raises:
        SelfplayError: sets, models, judges or files that cannot be used, or a server is gone; what is written stays.
    """
    from bench.judgement.report import write_reports

    benchmark = _prepared(config, Path(out), say)
    models = _known_answers(config, benchmark, say)
    asyncio.run(_answers(config, benchmark, models, dry_run, say, begin))
    if config.judge is None:
        return []
    judge = asyncio.run(_judgments(config, benchmark, dry_run, say, begin))
    if judge is None:
        return []
    return [report for report in write_reports(benchmark.folder) if report.is_of(judge, config.mode)]


def report_judgments(out: str | Path) -> list[Report]:
    """Reports again, from files alone: of a set's folder, or of all in a folder of sets.

    Raises:
        DataError: there are no judgments.
    """
    from bench.judgement.report import write_reports

    folder = Path(out)
    folders = [folder] if (folder / "model_judgment").is_dir() else sorted(folder.glob("*/model_judgment"))
    if not folders:
        raise DataError(f"{folder}: no judgments in it; expected model_judgment/ in a set's folder")
    return [report for found in folders for report in write_reports(found if found == folder else found.parent)]


def _prepared(config: JudgeConfig, out: Path, say: Say) -> Benchmark:
    from bench.judgement.answers import read_answers
    from bench.judgement.report import About, write_about
    from bench.judgement.sets import DEFAULT_TEMPERATURE, open_set

    files = open_set(config.set, config.data)
    chosen, questions = files.set, files.questions()
    unknown = {q.category for q in questions if q.temperature is None and q.category not in chosen.temperatures}
    if unknown and config.models:
        say(f"no temperature for {', '.join(sorted(unknown)) or 'no category'}: {DEFAULT_TEMPERATURE} is taken")
    prompts = files.judge_prompts() if config.judge else {}
    references = None
    if config.judge and config.reference and any(q.category in chosen.needs_reference for q in questions):
        references = read_answers(files.find(chosen.references, "reference answers"))
    folder = out / chosen.name
    about = About(chosen.title, {str(q.id): q.category for q in questions}, config.baseline or chosen.baseline)
    write_about(folder, about)
    return Benchmark(files, questions, prompts, references, folder)


def _known_answers(config: JudgeConfig, benchmark: Benchmark, say: Say) -> dict[str, str]:
    """The models that have to answer themselves; published answers of others are put beside theirs.

    Raises:
        ModelError: a model that is nowhere.
    """
    from bench.judgement.answers import answer_row, read_answers
    from bench.judgement.rows import hold

    baseline = _baseline(config, benchmark) if config.mode == "pairwise-baseline" else None
    asked = {**config.models, **({baseline: baseline} if baseline and baseline not in config.models else {})}
    here = {}
    for name, where in asked.items():
        path = answer_file(benchmark.folder, name)
        if is_url(where) or is_here(where):
            here[name] = where
        elif where in benchmark.set.answers:
            published = read_answers(
                benchmark.files.find((benchmark.set.answers[where],), f"answers of {where}"), benchmark.questions
            )
            with hold(path) as file:
                if not file.rows:
                    for question, choices in published.items():
                        file.append(answer_row(question, name, choices))
                    say(f"{name}: {len(published):,} published answers")
        elif not path.exists():
            known = f"; published are {', '.join(benchmark.set.answers)}" if benchmark.set.answers else ""
            raise ModelError(
                f"{name}: {where!r} is no model folder and no URL, and {path} does not exist{known}; give "
                "NAME=FOLDER or NAME=URL, or put its answers there"
            )
    return here


def answer_file(folder: Path, model: str) -> Path:
    """Where a model's answers are.

    Raises:
        ConfigError: a name that is no file name.
    """
    if not model or "/" in model or model.startswith("."):
        raise ConfigError(f"{model!r} cannot name a file of answers; give another, as in NAME=FOLDER")
    return folder / "model_answer" / f"{model}.jsonl"


def _baseline(config: JudgeConfig, benchmark: Benchmark) -> str:
    baseline = config.baseline or benchmark.set.baseline
    if baseline is None:
        raise ConfigError(f"{benchmark.set.title} has no baseline of its own; name one with --baseline")
    return baseline


async def _answers(
    config: JudgeConfig, benchmark: Benchmark, models: Mapping[str, str], dry_run: bool, say: Say, begin: Begin
) -> None:
    """One model after the other, so that each has the machine for itself."""
    from bench.judgement.answers import answer_all, unanswered
    from bench.judgement.made import check_made
    from bench.judgement.rows import hold

    for name, where in models.items():
        with hold(answer_file(benchmark.folder, name)) as file:
            facts = {"model": identity(where, config.endpoint), "temperatures": benchmark.set.temperatures}
            check_made(file.path, {**facts, "max_tokens": config.max_tokens, "seed": config.seed})
            owed = len(unanswered(benchmark.questions, file.rows, config.repeats))
            if dry_run:
                say(f"{name}: {owed:,} of {len(benchmark.questions):,} questions to answer")
            if not owed or dry_run:
                continue
            key = KEY_VARIABLES["assistant"]
            async with served(where, name, config.endpoint, key, benchmark.folder, config.kv_cache_gib) as model:
                step = begin(f"answers of {name}", len(benchmark.questions), len(benchmark.questions) - owed)
                done = await answer_all(
                    benchmark.set, benchmark.questions, file, model, repeats=config.repeats,
                    max_tokens=config.max_tokens, seed=config.seed, on_done=step,
                )  # fmt: skip
            lost = sum(bool(choice.get("errors")) for row in file.rows for choice in row["choices"])
            cut = sum(bool(choice.get("cut")) for row in file.rows for choice in row["choices"])
            say(
                f"{name}: {done.asked:,} questions answered, {done.known:,} were; {lost:,} tries without a whole "
                f"answer, {cut:,} with a turn cut at its token limit"
            )


async def _judgments(config: JudgeConfig, benchmark: Benchmark, dry_run: bool, say: Say, begin: Begin) -> str | None:
    """The judge's name in files, None where nothing was asked."""
    from bench.judgement.judge import Judging, judge_all, unjudged
    from bench.judgement.made import check_made
    from bench.judgement.rows import hold, read_rows

    planned, where = _planned(config, benchmark, say), str(config.judge)
    if dry_run:
        name = config.judge_endpoint.model or where
        path = judgment_file(benchmark.folder, name, config)
        known = read_rows(path) if path.exists() else []
        owed = unjudged(planned.matches, known, path.stem.rpartition("_")[0], config.judge_repeats)
        say(forecast(owed, config))
        return None
    how = Judging(config.judge_repeats, config.judge_max_tokens, config.structured, config.seed)
    called = None if is_url(where) else where
    async with served(
        where, called, config.judge_endpoint, JUDGE_KEY, benchmark.folder, config.kv_cache_gib, config.structured
    ) as judge:
        with hold(judgment_file(benchmark.folder, judge.name, config)) as file:
            facts = {"judge": identity(where, config.judge_endpoint), "structured": config.structured}
            check_made(file.path, {**facts, "max_tokens": config.judge_max_tokens, "seed": config.seed})
            owed = unjudged(planned.matches, file.rows, judge.name, config.judge_repeats)
            say(forecast(owed, config))
            step = begin(f"judgments by {judge.name}", len(planned.matches), len(planned.matches) - len(owed))
            with _Meter(config, benchmark.folder, judge.name, step) as meter:
                done = await judge_all(planned.matches, file, judge, how, meter)
        causes = "".join(f", {cause} {count:,}" for cause, count in done.unjudged.most_common())
        say(
            f"{judge.name}: {done.asked:,} judged, {done.known:,} were; without a verdict "
            f"{done.unjudged.total():,}{causes}"
        )
        return judge.name


def _planned(config: JudgeConfig, benchmark: Benchmark, say: Say) -> Planned:
    """The judgments to be made; what is missing or does not belong is said."""
    from bench.judgement.answers import read_answers
    from bench.judgement.matches import plan_matches

    folder = benchmark.folder / "model_answer"
    names = list(config.models) or sorted(path.stem for path in folder.glob("*.jsonl"))
    baseline = _baseline(config, benchmark) if config.mode == "pairwise-baseline" else None
    if baseline and baseline not in names:
        names.append(baseline)
    files = {name: answer_file(benchmark.folder, name) for name in names}
    answers = {name: read_answers(path) for name, path in files.items() if path.exists()}
    if len(answers) < (1 if config.mode == "single" else 2):
        raise DataError(
            f"{folder}: answers of {', '.join(answers) or 'no model'}; --mode {config.mode} needs "
            f"{'one model' if config.mode == 'single' else 'two models'} or more, give --model"
        )
    planned = plan_matches(
        benchmark.set, benchmark.questions, answers, benchmark.references, benchmark.prompts, config.mode, baseline
    )
    for name in answers:
        if planned.missing[name]:
            say(f"{name}: {planned.missing[name]:,} questions have no answer and are not judged")
        if planned.foreign[name]:
            say(f"{name}: {planned.foreign[name]:,} answers are to questions that are not in the set; left out")
    if planned.no_second:
        say(f"{planned.no_second:,} questions have no second turn; their first alone is judged")
    return planned


def forecast(owed: Sequence[Match], config: JudgeConfig) -> str:
    """What the judgments still to be made take, about."""
    asked = [text for match in owed for text in match.asked]
    verdicts = len(asked) * config.judge_repeats
    prompts = sum(len(text) for text in asked) * config.judge_repeats // TOKEN_CHARACTERS
    sampled = verdicts * VERDICT_TOKENS
    price = config.judge_endpoint
    cost = (prompts * price.input_price + sampled * price.output_price) / 1e6
    priced = f", cost about {cost:,.2f}" if cost else ""
    return f"{verdicts:,} verdicts to ask for: about {prompts:,} prompt tokens and {sampled:,} sampled ones{priced}"


def judgment_file(folder: Path, judge: str, config: JudgeConfig) -> Path:
    """Where a judge's verdicts are; FastChat's name for it."""
    kind = "single" if config.mode == "single" else "pair"
    return folder / "model_judgment" / f"{Path(judge).name}_{kind}.jsonl"


@dataclass(slots=True)
class _Meter:
    """Adds up what one run of a judge takes, and writes it down at its end, however it ends."""

    config: JudgeConfig
    folder: Path
    judge: str
    step: Callable[[], None]
    usage: Usage = field(default_factory=Usage)
    began: float = field(default_factory=time.monotonic)

    def __call__(self, used: Usage) -> None:
        self.usage += used
        self.step()

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *error: object) -> None:
        from bench.judgement.report import note_usage

        price, used = self.config.judge_endpoint, self.usage
        if used.prompt_tokens or used.sampled_tokens:
            cost = (used.prompt_tokens * price.input_price + used.sampled_tokens * price.output_price) / 1e6
            mode = "single" if self.config.mode == "single" else "pair"
            note_usage(self.folder, self.judge, mode, used, cost, time.monotonic() - self.began)
