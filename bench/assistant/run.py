"""Runner of judged benchmarks (`selfplay bench mt-bench` and the other sets): answers, judgments, reports.

It knows the order of the steps and no format of files. Every step continues where it stopped, so a run that was killed
is finished by the same command.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.assistant.prepare import (
    Benchmark,
    Say,
    answer_file,
    cost,
    describe_cost,
    judgment_file,
    plan_judgments,
    prepare_benchmark,
    resolve_models,
    say_cost,
)
from bench.config import JudgeConfig
from selfplay.chat.speakers import Usage
from selfplay.errors import DataError
from selfplay.serve.chat_model import EngineModel, ServerModel, folder_identity, is_here, open_model
from selfplay.serve.config import JUDGE_KEY, KEY_VARIABLES, is_url

if TYPE_CHECKING:
    from bench.assistant.jsonl import RowFile
    from bench.assistant.judge import Judging
    from bench.assistant.matches import MatchPlan
    from bench.assistant.report import Report

Begin = Callable[[str, int, int], Callable[[], None]]
"""Called at the start of a step with its title, its size and how much is done; returns what is called for each unit."""
_FLUSH = 64
"""Number of matches between two rows of usage."""


def judge_questions(
    config: JudgeConfig,
    out: str | Path,
    *,
    dry_run: bool = False,
    say: Say = print,
    begin: Begin = lambda what, total, done: lambda: None,
) -> list[Report]:
    """Let models answer a question set, let a judge grade the answers, and write reports, all in `out/SET`.

    Args:
        dry_run: report what would be asked and what it would cost; ask and write nothing.
        say: called with each message to the user.
        begin: called at the start of each step, to show progress; see `Begin`.

    Returns:
        The reports of this judge in this mode, none without a judge. The reports of other judges are written again too.

    Raises:
        SelfplayError: a set, model, judge or file cannot be used, or a server is gone. What was written stays.
    """
    from bench.assistant.report import About, write_about, write_reports

    benchmark = prepare_benchmark(config, Path(out), say)
    models = resolve_models(config, benchmark)
    if dry_run:
        say_cost(config, benchmark, models, say)
        return []
    categories = {str(question.id): question.category for question in benchmark.questions}
    write_about(benchmark.folder, About(benchmark.set.title, categories, config.baseline or benchmark.set.baseline))
    _copy_published(benchmark, models, say)
    asyncio.run(_answers(config, benchmark, models, say, begin))
    if not benchmark.judge:
        return []
    asyncio.run(_judgments(config, benchmark, say, begin))
    return [report for report in write_reports(benchmark.folder) if report.is_of(benchmark.judge, config.mode)]


def report_judgments(out: str | Path) -> list[Report]:
    """Write the reports again from files alone, of one set's folder or of every set in a folder.

    Raises:
        DataError: the folder holds no judgments.
    """
    from bench.assistant.report import write_reports

    folder = Path(out)
    if (folder / "model_judgment").is_dir():
        return write_reports(folder)
    judged = sorted({path.parent.parent for path in folder.glob("*/model_judgment/*.jsonl") if path.stat().st_size})
    if not judged:
        raise DataError(f"{folder}: no judgments in it; expected model_judgment/ in a set's folder")
    return [report for set_folder in judged for report in write_reports(set_folder)]


def _copy_published(benchmark: Benchmark, models: Mapping[str, str], say: Say) -> None:
    """Copy the published answers of models that are neither a folder nor a URL into the folder of answers."""
    from bench.assistant.answers import answer_row, read_answers
    from bench.assistant.jsonl import open_locked

    for name, where in models.items():
        if is_url(where) or is_here(where) or where not in benchmark.set.answers:
            continue
        path = benchmark.files.find((benchmark.set.answers[where],), f"answers of {where}")
        published = read_answers(path, benchmark.questions)
        with open_locked(answer_file(benchmark.folder, name)) as file:
            answered = {row.get("question_id") for row in file.rows}
            for question in [question for question in published if question not in answered]:
                file.append(answer_row(question, name, published[question]))
            if not answered:
                say(f"{name}: {len(published):,} published answers")


async def _answers(
    config: JudgeConfig, benchmark: Benchmark, models: Mapping[str, str], say: Say, begin: Begin
) -> None:
    """Generate the answers of one model after the other, so that each has the machine for itself."""
    from bench.assistant.answers import answer_all, read_answers, unanswered
    from bench.assistant.jsonl import open_locked
    from bench.assistant.provenance import check_provenance

    asked = len(benchmark.questions)
    for name, where in models.items():
        if not is_url(where) and not is_here(where):
            continue
        with open_locked(answer_file(benchmark.folder, name)) as file:
            facts = {"temperatures": benchmark.set.temperatures, "max_tokens": config.max_tokens, "seed": config.seed}
            if is_here(where):
                _tell_unknown(check_provenance(file.path, {**facts, "model": folder_identity(where)}), name, file, say)
            else:
                check_provenance(file.path, facts, unsaid=("model",))  # known once the server is reached
            pending = len(unanswered(benchmark.questions, read_answers(file.path), config.repeats))
            if not pending:
                say(f"{name}: all {asked:,} questions were answered")
                continue
            async with open_model(
                where, name, config.endpoint, KEY_VARIABLES["assistant"], benchmark.folder, config.kv_cache_gib
            ) as model:
                if isinstance(model, ServerModel):
                    _tell_unknown(
                        check_provenance(file.path, {**facts, "model": model.endpoint.model}), name, file, say
                    )
                step = begin(f"answers of {name}", asked, asked - pending)
                done = await answer_all(
                    benchmark.set, benchmark.questions, file, model, repeats=config.repeats,
                    max_tokens=config.max_tokens, seed=config.seed, on_done=step,
                )  # fmt: skip
            lost = sum(bool(choice.get("errors")) for row in file.rows for choice in row["choices"])
            cut = sum(bool(choice.get("cut")) for row in file.rows for choice in row["choices"])
            say(
                f"{name}: {done.asked:,} questions answered, {done.known:,} were; {done.usage.sampled_tokens:,} tokens,"
                f" {lost:,} tries without a whole answer, {cut:,} with a turn cut at its limit"
            )


def _tell_unknown(provenance_known: bool, name: str, file: RowFile, say: Say) -> None:
    if not provenance_known:
        say(f"{name}: {len(file.rows):,} rows were in {file.path}; what made them is not known, they are kept")


async def _judgments(config: JudgeConfig, benchmark: Benchmark, say: Say, begin: Begin) -> None:
    from bench.assistant.jsonl import open_locked
    from bench.assistant.judge import Judging, unjudged
    from bench.assistant.provenance import check_provenance

    plan, where = plan_judgments(config, benchmark, say), str(config.judge)
    how = Judging(config.judge_repeats, config.judge_max_tokens, config.structured, config.seed)
    with open_locked(judgment_file(benchmark, config.mode)) as file:
        provenance_known = check_provenance(file.path, _facts_of_judging(config, benchmark, where))
        _tell_unknown(provenance_known, benchmark.judge, file, say)
        pending = unjudged(plan.matches, file.rows, benchmark.judge, how.repeats)
        if not pending:
            say(f"{benchmark.judge}: all {len(plan.matches):,} judgments were there")
            return
        say(describe_cost(pending, config))
        async with open_model(
            where, benchmark.judge, config.judge_endpoint, JUDGE_KEY, benchmark.folder, config.kv_cache_gib,
            config.structured,
        ) as judge:  # fmt: skip
            step = begin(f"judgments by {judge.name}", len(plan.matches), len(plan.matches) - len(pending))
            await _judge(plan, file, judge, how, _Meter(config, benchmark, step), say)


async def _judge(
    plan: MatchPlan, file: RowFile, judge: EngineModel | ServerModel, how: Judging, meter: _Meter, say: Say
) -> None:
    from bench.assistant.judge import judge_all

    try:
        done = await judge_all(plan.matches, file, judge, how, meter)
    finally:
        meter.flush()
    causes = "".join(f", {cause} {count:,}" for cause, count in done.unjudged.most_common())
    without = f"without a verdict {done.unjudged.total():,}{causes}"
    say(f"{judge.name}: {done.asked:,} judged, {done.known:,} were; {without}")


def _facts_of_judging(config: JudgeConfig, benchmark: Benchmark, where: str) -> dict[str, Any]:
    """The facts that must not change between the rows of one judgment file."""
    names = benchmark.set.single if config.mode == "single" else benchmark.set.pairwise
    used = [str(benchmark.prompts.get(name)) for name in names.model_dump().values()]
    return {
        "judge": folder_identity(where) if is_here(where) else benchmark.judge,
        "prompts": blake2b("\n".join(used).encode(), digest_size=8).hexdigest(),
        "reference": config.reference,
        "structured": config.structured,
        "max_tokens": config.judge_max_tokens,
        "seed": config.seed,
    }


@dataclass(slots=True)
class _Meter:
    """Meter of the judge's usage, written to `usage.jsonl` every 64 matches, so that a kill loses little of it."""

    config: JudgeConfig
    benchmark: Benchmark
    step: Callable[[], None]
    usage: Usage = field(default_factory=Usage)
    matches: int = 0
    since: float = field(default_factory=time.monotonic)

    def __call__(self, used: Usage) -> None:
        """Add the usage of one match."""
        self.usage += used
        self.matches += 1
        if self.matches >= _FLUSH:
            self.flush()
        self.step()

    def flush(self) -> None:
        """Write the usage since the last flush."""
        from bench.assistant.report import note_usage

        used, now = self.usage, time.monotonic()
        if self.matches:
            money = cost(self.config, used.prompt_tokens, used.sampled_tokens)
            mode = "single" if self.config.mode == "single" else "pair"
            note_usage(self.benchmark.folder, self.benchmark.judge, mode, used, money, now - self.since)
        self.usage, self.matches, self.since = Usage(), 0, now
