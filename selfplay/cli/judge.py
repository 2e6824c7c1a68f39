"""`selfplay bench mt-bench` and the other question sets, and their reports. Parses, calls `app`, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_SETS = {
    "mt-bench": "80 questions of two turns in eight categories.",
    "vicuna-bench": "80 questions of one turn.",
    "arena-hard": "500 prompts of people in Chatbot Arena.",
    "alpaca-eval": "805 instructions.",
    "mt-bench-101": "1,388 dialogues for 13 tasks, judged turn by turn.",
}
_OWN = "questions"


def add_commands(cli: typer.Typer) -> None:
    """A command a shipped set, one for sets of one's own, and one for reports."""
    for name, what in _SETS.items():
        cli.command(name, help=f"{what} Models answer, a judge judges, in FastChat's files.")(judged)
    cli.command(_OWN, help="A question set of one's own, a YAML file as its argument: see docs/mt-bench.md.")(judged)
    cli.command("report")(report)


def judged(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of answers, judgments and reports, a folder a set.")],
    file: Annotated[str | None, typer.Argument(hidden=True)] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FOLDER or NAME=URL that answers, or a NAME with known answers.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="FOLDER, URL, or model name at $OPENAI_BASE_URL.")] = None,
    mode: Annotated[str, typer.Option(help="single, pairwise-baseline or pairwise-all.")] = "single",
    reference: Annotated[bool, typer.Option(help="Show the judge the reference answers.")] = True,
    baseline: Annotated[str | None, typer.Option(help="Model the others are compared with.")] = None,
    data: Annotated[Path | None, typer.Option(help="FastChat's data folder; or $SELFPLAY_BENCH_DATA.")] = None,
    repeats: Annotated[int, typer.Option(help="Answers to each question.")] = 1,
    judge_repeats: Annotated[int, typer.Option(help="Verdicts on each answer; the median counts.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 1024,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name on its server.")] = None,
    structured: Annotated[bool, typer.Option("--structured", help="Verdicts as JSON by schema.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of answers and verdicts.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; ask and write nothing.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: judge_endpoint.max_concurrency=8.")
    ] = None,
) -> None:
    """Models answer, a judge judges, a report says what came of it."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import bench as console_bench
    from selfplay.console import generate as console

    values = {
        "set": console_bench.set_named(context.info_name or "", file, _OWN),
        "models": console_bench.named(model or []),
        "judge": judge,
        "mode": mode,
        "reference": reference,
        "baseline": baseline,
        "data": str(data) if data else None,
        "repeats": repeats,
        "judge_repeats": judge_repeats,
        "max_tokens": max_tokens,
        "structured": structured,
        "seed": seed,
    }
    assigned = config.assignments(settings or [])
    if judge_model is not None:
        assigned["judge_endpoint.model"] = judge_model
    wanted = config.with_assigned(app.JudgeConfig, values, assigned, "these settings")
    with console_bench.judging_progress() as begin:
        reports = app.bench_questions(wanted, out, dry_run=dry_run, say=console.say, begin=begin)
    console_bench.print_judged(reports)


def report(out: Annotated[Path, typer.Argument(help="Folder of a set, or of several.")]) -> None:
    """Make the reports again, from the files alone; FastChat's judgment files will do."""
    from selfplay import app
    from selfplay.console import bench as console_bench

    console_bench.print_judged(app.report_judgments(out))
