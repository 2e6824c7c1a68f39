"""`selfplay bench ...`: simulated users, corpora, the embedded pair, and assistants under a judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from selfplay.cli.options import Settings, parse_names
from selfplay.errors import ConfigError

cli = typer.Typer(help="Score models and conversations.", no_args_is_help=True, rich_markup_mode=None)


@cli.command()
def simulator(
    out: Annotated[Path, typer.Option(help="Folder for scorecard.json, scorecard.md, panel.png and the runs.")],
    model: Annotated[list[str] | None, typer.Option(help="[NAME=]FOLDER of a user simulator (repeatable).")] = None,
    prompted: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FOLDER of an assistant told to be the user.")
    ] = None,
    conversations: Annotated[
        list[str] | None, typer.Option(help="[NAME=]RUN or FILE of conversations that exist.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="Held-out people: catalogue name or file.")] = None,
    human: Annotated[list[str] | None, typer.Option(help="People beside free self-play; default: see docs.")] = None,
    temperature: Annotated[list[float] | None, typer.Option(help="Of the first model; a row each.")] = None,
    intents: Annotated[bool, typer.Option("--intents", help="The models were trained with intents.")] = False,
    embeddings: Annotated[str | None, typer.Option(help="sentence-transformers model, for topic diversity.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Model folder fine-tuned to tell users from people.")] = None,
    detector: Annotated[str | None, typer.Option(help="URL of a detector; key in $SELFPLAY_DETECTOR_KEY.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder whose tokenizer counts tokens.")] = None,
    recipe: Annotated[str, typer.Option(help="Self-play: YAML file or shipped recipe.")] = "nano/generate",
    assistant: Annotated[str | None, typer.Option(help="Folder of the assistant they talk to, or a URL.")] = None,
    number: Annotated[int, typer.Option("-n", help="Free conversations of each model.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of self-play and of samples.")] = 0,
    settings: Settings = None,
) -> None:
    """How human is a simulated user: likelihood, ending, naturalness, diversity, habits; people in the same table."""
    from bench.config import ScorecardConfig
    from selfplay.app import score_simulators
    from selfplay.console.bench import print_scorecard
    from selfplay.console.terminal import say
    from selfplay.generate.config import GenerateConfig
    from selfplay.recipe import assignments, load_recipe, validated

    rows = {name: parse_names(given or []) for name, given in
            (("models", model), ("prompted", prompted), ("conversations", conversations))}  # fmt: skip
    values = {
        **rows,
        "data": data or [],
        "human": human or [],
        "temperatures": temperature or [],
        "intents": intents,
        "embeddings": embeddings,
        "encoder": encoder,
        "detector": detector,
        "tokenizer": tokenizer or "nano",
    }
    config = validated(ScorecardConfig, values, "scorecard")
    overrides = {"assistant.model": assistant, "conversations": number, "seed": seed}
    play = load_recipe(recipe, GenerateConfig, overrides, assignments(settings or []))
    print_scorecard(score_simulators(config, play, out, say), out)


@cli.command()
def corpus(
    sources: Annotated[list[str], typer.Argument(help="[NAME=]RUN, FILE or catalogue name, any number.")],
    tokenizer: Annotated[str, typer.Option(help="Folder whose tokenizer counts tokens.")] = "nano",
    embeddings: Annotated[str | None, typer.Option(help="sentence-transformers model: topics, coherence.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Question file to look for (repeatable).")] = None,
    format: Annotated[str | None, typer.Option(help="Source schema, if not recognised; see `data formats`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for corpus.json and corpus.md.")] = None,
) -> None:
    """Describe corpora side by side: rounds, tokens, MTLD, topics, languages, duplicates, benchmark questions."""
    from bench.corpus.run import describe_corpora
    from selfplay.console.bench import corpus_progress, print_corpora

    with corpus_progress() as progress:
        corpora = describe_corpora(
            parse_names(sources),
            tokenizer=tokenizer,
            embeddings=embeddings,
            benchmarks=benchmark or [],
            format=format,
            out=out,
            on_progress=progress,
        )
    print_corpora(corpora, out)


@cli.command("nano")
def bench_nano(
    out: Annotated[Path, typer.Option(help="Folder for scores.json, scores.md and the free run.")],
    data: Annotated[list[str] | None, typer.Option(help="Human sets with services (repeatable).")] = None,
    base: Annotated[str, typer.Option(help="Model both sides were trained from.")] = "nano",
    simulator: Annotated[str | None, typer.Option(help="Folder of the user simulator.")] = None,
    assistant: Annotated[str | None, typer.Option(help="Folder of the assistant.")] = None,
    conversations: Annotated[int, typer.Option("-n", help="Free conversations.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the free run.")] = 0,
) -> None:
    """Score a small pair: likelihood, endings and free self-play, beside base, rule and people."""
    from selfplay.app import score_nano
    from selfplay.console.bench import print_nano
    from selfplay.console.terminal import say
    from selfplay.generate.config import GenerateConfig
    from selfplay.recipe import load_recipe

    overrides = {
        "simulator.model": simulator,
        "assistant.model": assistant,
        "conversations": conversations,
        "seed": seed,
    }
    config = load_recipe("nano/generate", GenerateConfig, overrides)
    print_nano(score_nano(config, base, data or ["sgd_dev"], out, say), out)


_SETS = {
    "mt-bench": "80 questions of two turns in eight categories.",
    "vicuna-bench": "80 questions of one turn.",
    "arena-hard": "500 prompts of people in Chatbot Arena.",
    "alpaca-eval": "805 instructions.",
    "mt-bench-101": "1,388 dialogues for 13 tasks, judged turn by turn.",
}
_OWN = "questions"
"""The command for question sets of one's own."""


def _judge(name: str) -> Callable[..., None]:
    """The command of one question set; they differ in its name."""

    def command(
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
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Say what it would take; ask and write nothing.")
        ] = False,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="Any setting: judge_endpoint.max_concurrency=8.")
        ] = None,
    ) -> None:
        from bench.assistant.run import judge_questions
        from bench.config import JudgeConfig
        from selfplay.console.bench import judging_progress, print_judged
        from selfplay.console.terminal import say
        from selfplay.recipe import assignments, with_assigned

        values = {
            "set": _question_set(name, file),
            "models": parse_names(model or []),
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
        assigned = assignments(settings or [])
        if judge_model is not None:
            assigned["judge_endpoint.model"] = judge_model
        config = with_assigned(JudgeConfig, values, assigned, "these settings")
        with judging_progress() as begin:
            reports = judge_questions(config, out, dry_run=dry_run, say=say, begin=begin)
        print_judged(reports)

    return command


def _question_set(name: str, file: str | None) -> str:
    """The question set of a command: its own name, or for sets of one's own the file given.

    Raises:
        ConfigError: a file where none is taken, or none where one is.
    """
    if name == _OWN and file is None:
        raise ConfigError(f"bench {_OWN} needs the YAML file of a question set")
    if name != _OWN and file is not None:
        raise ConfigError(f"bench {name} takes no file; for {file} use `selfplay bench {_OWN} {file}`")
    return file or name


for _name, _what in _SETS.items():
    cli.command(_name, help=f"{_what} Models answer, a judge judges, in FastChat's files.")(_judge(_name))
cli.command(_OWN, help="A question set of one's own, a YAML file as its argument: see docs/mt-bench.md.")(_judge(_OWN))


@cli.command()
def report(out: Annotated[Path, typer.Argument(help="Folder of a set, or of several.")]) -> None:
    """Make the reports again, from the files alone; FastChat's judgment files will do."""
    from bench.assistant.run import report_judgments
    from selfplay.console.bench import print_judged

    print_judged(report_judgments(out))
