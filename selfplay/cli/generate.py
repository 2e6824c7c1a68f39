"""`selfplay generate`, `show`, `export` and `chat`: runs of self-play, made and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfplay.cli.options import Settings

if TYPE_CHECKING:
    from selfplay.generate.config import GenerateConfig


def add_commands(cli: typer.Typer) -> None:
    """The commands of this group stand at the top level."""
    for command in (generate, show, export, chat):
        cli.command()(command)


def generate(
    recipe: Annotated[str, typer.Argument(help="YAML file or shipped recipe.")] = "nano/generate",
    simulator: Annotated[str | None, typer.Option(help="Folder of the user simulator, or a server's URL.")] = None,
    simulator_model: Annotated[str | None, typer.Option(help="Its name on the server.")] = None,
    simulator_tokenizer: Annotated[str | None, typer.Option(help="Folder of its tokenizer and template.")] = None,
    assistant: Annotated[str | None, typer.Option(help="Folder of the assistant, or a server's URL.")] = None,
    assistant_model: Annotated[str | None, typer.Option(help="Its name on the server.")] = None,
    conversations: Annotated[int | None, typer.Option("-n", help="Number of conversations.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same conversations (float32 engines).")] = None,
    openings: Annotated[Path | None, typer.Option(help="First user turns: a line each, or JSONL.")] = None,
    per_opening: Annotated[int | None, typer.Option(help="Conversations from each opening.")] = None,
    system: Annotated[str | None, typer.Option(help="The assistant's system prompt.")] = None,
    max_rounds: Annotated[int | None, typer.Option(help="Longest conversation in rounds.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Most conversations at once; default: what fits.")] = None,
    max_tokens_total: Annotated[int | None, typer.Option(help="Stop after this many sampled tokens.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    settings: Settings = None,
    metrics_port: Annotated[int | None, typer.Option(help="Offer metrics to Prometheus on this port.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which engine would run where; start none.")] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only measure what the run would take.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Grow the run in --out by -n conversations.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an interrupted run.")] = False,
) -> None:
    """Let the simulator and the assistant talk, and store what they say."""
    from selfplay.console import generate as console
    from selfplay.generate.config import GenerateConfig
    from selfplay.recipe import assignments, load_recipe

    overrides = {
        "simulator.model": simulator,
        "simulator.endpoint.model": simulator_model,
        "simulator.endpoint.tokenizer": simulator_tokenizer,
        "simulator.openings": None if openings is None else str(openings),
        "simulator.conversations_per_opening": per_opening,
        "assistant.model": assistant,
        "assistant.endpoint.model": assistant_model,
        "assistant.system": system,
        "conversations": conversations,
        "out": None if out is None else str(out),
        "seed": seed,
        "max_rounds": max_rounds,
        "max_in_flight": max_in_flight,
        "max_tokens_total": max_tokens_total,
        "max_hours": max_hours,
    }
    config = load_recipe(recipe, GenerateConfig, overrides, assignments(settings or []))
    if dry_run:
        from selfplay.generate.run import placement

        console.print_placement(placement(config))
    elif estimate:
        from selfplay.generate.estimate import estimate_run

        with console.RunProgress() as progress:
            cost = estimate_run(config, progress)
        console.print_estimate(cost)
    else:
        _generate(config, resume, append, metrics_port)


def _generate(config: GenerateConfig, resume: bool, append: bool, metrics_port: int | None) -> None:
    from selfplay.console import generate as console
    from selfplay.console import terminal
    from selfplay.generate.play import INTERRUPTED
    from selfplay.generate.run import generate, with_folder
    from selfplay.store.summary import summarise_run

    config = with_folder(config, resume or append)
    with console.RunProgress() as progress:
        progress.say(f"run folder {config.out}; if interrupted, go on with --out {config.out} --resume")
        run = generate(config, resume=resume, append=append, on_event=progress, metrics_port=metrics_port)
    console.print_summary(summarise_run(run.folder), str(run.folder))
    if run.stopped is not None:
        more = "without --append and -n, with" if append else "and"
        terminal.say(f"stopped: {run.stopped}. Go on with the same command {more} --out {run.folder} --resume")
        raise typer.Exit(130 if run.stopped == INTERRUPTED else 0)


def show(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    id: Annotated[str | None, typer.Argument(help="Conversation; left out, the run's summary.")] = None,
) -> None:
    """Print a run's summary, or one conversation."""
    from selfplay.console import generate as console
    from selfplay.store.decisions import decisions_on
    from selfplay.store.store import open_run
    from selfplay.store.summary import summarise_run

    if id is None:
        console.print_summary(summarise_run(run), str(run))
        return
    with open_run(run) as reader:
        console.print_conversation(reader.conversation(id), decisions_on(run, id))


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    format: Annotated[Literal["messages", "sharegpt"], typer.Option(help="Row schema.")] = "messages",
) -> None:
    """Write a run's conversations as training data."""
    from selfplay.console import generate as console
    from selfplay.store.export import export_run

    console.print_export(export_run(run, format, out), out)


def chat(
    as_: Annotated[Literal["user", "assistant"], typer.Option("--as", help="The side you take.")] = "user",
    simulator: Annotated[str, typer.Option(help="Folder of the user simulator.")] = "nano",
    assistant: Annotated[str, typer.Option(help="Folder of the assistant.")] = "nano",
    system: Annotated[str | None, typer.Option(help="The assistant's system prompt.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the model's side.")] = 0,
) -> None:
    """Talk to the assistant, or be the assistant of the simulated user."""
    from selfplay.console.generate import TerminalSpeaker
    from selfplay.generate.chat import chat
    from selfplay.generate.config import GenerateConfig
    from selfplay.recipe import load_recipe

    overrides = {
        "simulator.model": simulator,
        "assistant.model": assistant,
        "assistant.system": system,
        "seed": seed,
    }
    chat(load_recipe("nano/generate", GenerateConfig, overrides), as_, TerminalSpeaker(as_))
