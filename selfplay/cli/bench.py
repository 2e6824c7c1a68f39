"""`selfplay bench ...`: scores of simulated users, of corpora, of the embedded pair. Parses, calls `app`, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfplay.cli.judge import add_commands

bench_cli = typer.Typer(help="Score models and conversations.", no_args_is_help=True, rich_markup_mode=None)
add_commands(bench_cli)


@bench_cli.command()
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
    people: Annotated[list[str] | None, typer.Option(help="People beside free self-play; default: see docs.")] = None,
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
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of self-play: key.key=value.")
    ] = None,
) -> None:
    """How human is a simulated user: likelihood, ending, naturalness, diversity, habits; people in the same table."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import bench as console_bench
    from selfplay.console import generate as console
    from selfplay.generate.config import GenerateConfig

    rows = {name: console_bench.named(given or []) for name, given in
            (("models", model), ("prompted", prompted), ("conversations", conversations))}  # fmt: skip
    values = {
        **rows,
        "data": data or [],
        "people": people or [],
        "temperatures": temperature or [],
        "intents": intents,
        "embeddings": embeddings,
        "encoder": encoder,
        "detector": detector,
        "tokenizer": tokenizer or "nano",
    }
    wanted = config.validated(app.ScorecardConfig, values, "scorecard")
    overrides = {"assistant": assistant, "conversations": number, "seed": seed}
    play = config.load_recipe(recipe, GenerateConfig, overrides, config.assignments(settings or []))
    console_bench.print_scorecard(app.score_simulators(wanted, play, out, console.say))
    console.out.print(f"scorecard: {out}/scorecard.md, {out}/panel.png", markup=False, soft_wrap=True)


@bench_cli.command()
def corpus(
    sources: Annotated[list[str], typer.Argument(help="[NAME=]RUN, FILE or catalogue name, any number.")],
    tokenizer: Annotated[str, typer.Option(help="Folder whose tokenizer counts tokens.")] = "nano",
    embeddings: Annotated[str | None, typer.Option(help="sentence-transformers model: topics, coherence.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Question file to look for (repeatable).")] = None,
    format: Annotated[str | None, typer.Option(help="Source schema, if not recognised; see `data formats`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for corpus.json and corpus.md.")] = None,
) -> None:
    """Describe corpora side by side: rounds, tokens, MTLD, topics, languages, duplicates, benchmark questions."""
    from selfplay import app
    from selfplay.console import bench as console_bench
    from selfplay.console import generate as console

    with console_bench.corpus_progress() as progress:
        described = app.describe_corpora(
            console_bench.named(sources),
            tokenizer=tokenizer,
            embeddings=embeddings,
            benchmarks=benchmark or [],
            format=format,
            out=out,
            on_progress=progress,
        )
    console_bench.print_corpora(*described)
    if out is not None:
        console.out.print(f"corpora: {out}/corpus.md", markup=False, soft_wrap=True)


@bench_cli.command("nano")
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
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import bench as console_bench
    from selfplay.console import generate as console
    from selfplay.generate.config import GenerateConfig

    overrides = {"simulator": simulator, "assistant": assistant, "conversations": conversations, "seed": seed}
    settings = config.load_recipe("nano/generate", GenerateConfig, overrides)
    console_bench.print_nano(app.score_nano(settings, base, data or ["sgd_dev"], out, console.say))
    console.out.print(f"scores: {out}/scores.md", markup=False, soft_wrap=True)
