"""The `selfplay` command. Each command parses, calls `selfplay.app` and prints; nothing is decided here.

Heavy modules are imported inside commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from selfplay.cli.bench import bench_cli
from selfplay.cli.data import data_cli
from selfplay.cli.loop import add_commands
from selfplay.cli.train import train_cli
from selfplay.errors import SelfplayError

cli = typer.Typer(
    help="A user simulator talks to an assistant; the conversations train the next assistant.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

cli.add_typer(bench_cli, name="bench")
cli.add_typer(data_cli, name="data")
cli.add_typer(train_cli, name="train")
add_commands(cli)

Out = Annotated[Path | None, typer.Option(help="Output folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]


@cli.command()
def generate(
    recipe: Annotated[str, typer.Argument(help="YAML file or shipped recipe.")] = "nano/generate",
    simulator: Annotated[str | None, typer.Option(help="Folder of the user simulator, or a server's URL.")] = None,
    simulator_model: Annotated[str | None, typer.Option(help="Its name on the server.")] = None,
    simulator_tokenizer: Annotated[str | None, typer.Option(help="Folder of its tokenizer and template.")] = None,
    assistant: Annotated[str | None, typer.Option(help="Folder of the assistant, or a server's URL.")] = None,
    assistant_model: Annotated[str | None, typer.Option(help="Its name on the server.")] = None,
    conversations: Annotated[int | None, typer.Option("-n", help="Number of conversations.")] = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same conversations (float32 engines).")] = None,
    openings: Annotated[Path | None, typer.Option(help="First user turns: a line each, or JSONL.")] = None,
    per_opening: Annotated[int | None, typer.Option(help="Conversations from each opening.")] = None,
    system: Annotated[str | None, typer.Option(help="The assistant's system prompt.")] = None,
    max_rounds: Annotated[int | None, typer.Option(help="Longest conversation in rounds.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Most conversations at once; default: what fits.")] = None,
    max_tokens_total: Annotated[int | None, typer.Option(help="Stop after this many sampled tokens.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: key.key=value.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Offer figures to Prometheus on this port.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show which engine runs where.")] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only measure what the run would take.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Grow the run in --out by -n conversations.")] = False,
    resume: Resume = False,
) -> None:
    """Let the simulator and the assistant talk, and store what they say."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import generate as console
    from selfplay.generate.config import GenerateConfig

    given = dict(locals())
    fields = GenerateConfig.model_fields
    overrides = {
        name: str(value) if isinstance(value, Path) else value for name, value in given.items() if name in fields
    }
    overrides["simulator_endpoint.model"] = simulator_model
    overrides["simulator_endpoint.tokenizer"] = simulator_tokenizer
    overrides["assistant_endpoint.model"] = assistant_model
    loaded = config.load_recipe(recipe, GenerateConfig, overrides, config.assignments(settings or []))
    if plan:
        console.print_placement(app.placement(loaded))
        return
    if estimate:
        with console.RunProgress() as progress:
            forecast = app.estimate(loaded, progress)
        console.print_forecast(forecast)
        return
    loaded = app.with_folder(loaded, resume or append)
    with console.RunProgress() as progress:
        progress.say(f"run folder {loaded.out}; if interrupted, go on with --out {loaded.out} --resume")
        run = app.generate(loaded, resume=resume, append=append, on_event=progress, metrics_port=metrics_port)
    console.print_summary(app.summary(run.folder), str(run.folder))
    if run.stopped is not None:
        more = "without --append and -n, with" if append else "and"
        console.say(f"stopped: {run.stopped}. Go on with the same command {more} --out {run.folder} --resume")
        raise typer.Exit(130 if run.stopped == app.INTERRUPTED else 0)


@cli.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    id: Annotated[str | None, typer.Argument(help="Conversation; left out, the run's summary.")] = None,
) -> None:
    """Print a run's summary, or one conversation."""
    from selfplay import app
    from selfplay.console import generate as console

    if id is None:
        console.print_summary(app.summary(run), str(run))
    else:
        with app.open_run(run) as reader:
            console.print_conversation(reader.conversation(id))
        for verdict in app.verdicts_on(run, id):
            console.out.print(str(verdict), markup=False, soft_wrap=True)


@cli.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    format: Annotated[Literal["messages", "sharegpt"], typer.Option(help="Row schema.")] = "messages",
) -> None:
    """Write a run's conversations as training data."""
    from selfplay import app
    from selfplay.console import generate as console

    exported = app.export_run(run, format, out)
    left_out = ", ".join(f"{count} {reason}" for reason, count in exported.left_out.most_common()) or "none"
    console.out.print(
        f"{exported.rows} conversations written to {out}; left out: {left_out}", markup=False, soft_wrap=True
    )


@cli.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Recipe to print.")] = None) -> None:
    """List the shipped recipes, or print one."""
    from selfplay import recipe as config
    from selfplay.console import generate as console

    if name is None:
        console.print_recipes(config.shipped_recipes())
    else:
        console.out.print(config.recipe_text(name), end="", markup=False, soft_wrap=True)


@cli.command()
def chat(
    as_: Annotated[Literal["user", "assistant"], typer.Option("--as", help="The side you take.")] = "user",
    simulator: Annotated[str, typer.Option(help="Folder of the user simulator.")] = "nano",
    assistant: Annotated[str, typer.Option(help="Folder of the assistant.")] = "nano",
    system: Annotated[str | None, typer.Option(help="The assistant's system prompt.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the model's side.")] = 0,
) -> None:
    """Talk to the assistant, or be the assistant of the simulated user."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import generate as console
    from selfplay.generate.config import GenerateConfig

    overrides = {"simulator": simulator, "assistant": assistant, "system": system, "seed": seed}
    settings = config.load_recipe("nano/generate", GenerateConfig, overrides)
    app.chat(settings, as_, console.TerminalPerson(as_))


def main() -> None:
    """Run the command; errors meant for the user are printed without a traceback and exit with 1."""
    try:
        cli()
    except SelfplayError as error:
        from selfplay.console import generate as console

        console.err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
