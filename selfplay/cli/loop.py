"""`selfplay curate` and `selfplay loop`: from conversations to the next assistant. Parses, calls `app`, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_commands(cli: typer.Typer) -> None:
    """The commands between generating and training."""
    cli.command()(curate)
    cli.command()(loop)
    cli.command()(lineage)


def curate(
    sources: Annotated[list[str], typer.Argument(help="Run folders, files or catalogue names.")],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    recipe: Annotated[str, typer.Option(help="YAML file or shipped recipe.")] = "curate/default",
    against: Annotated[
        list[str] | None, typer.Option(help="Run, file or name that counts as earlier conversations (repeatable).")
    ] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Question file to keep out (repeatable).")] = None,
    memorised_from: Annotated[
        list[str] | None, typer.Option(help="What the simulator was trained on: copies are counted (repeatable).")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: key.key=value.")] = None,
) -> None:
    """Keep the conversations that are fit to be learned from; say why of the others. Nothing is deleted."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import data as console_data
    from selfplay.console import generate as console

    overrides = {"against": against or None, "benchmarks": benchmark or None, "memorised_from": memorised_from or None}
    wanted = config.load_recipe(recipe, app.CurateConfig, overrides, config.assignments(settings or []))
    curated = app.curate(sources, out, wanted, console.say)
    console_data.print_curation(curated, out)


def loop(
    recipe: Annotated[
        str, typer.Argument(help="YAML file or shipped recipe; or `status` or `report`, then a loop's folder.")
    ],
    folder: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the loop.")] = None,
    iterations: Annotated[int | None, typer.Option(help="How many.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the conversations.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: key.key=value.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only measure what the loop would take.")] = False,
) -> None:
    """Talk, curate, fine-tune the assistant, score, again; `status` shows how far a loop is, `report` writes a page."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import generate as console
    from selfplay.console import loop as console_loop

    if recipe == "status":
        console_loop.print_status(app.loop_status(console_loop.given(folder, out)))
        return
    if recipe == "report":
        for page in app.loop_report(console_loop.given(folder, out)):
            console.out.print(str(page), markup=False, soft_wrap=True)
        return
    overrides = {"iterations": iterations, "seed": seed}
    wanted = config.load_recipe(recipe, app.LoopConfig, overrides, config.assignments(settings or []))
    if estimate:
        console_loop.print_foreseen(app.foresee(wanted, console_loop.given(out, folder), console.say))
        return
    looped = app.loop(wanted, console_loop.given(out, folder), console.say, console.RunProgress)
    console_loop.print_status(looped)
    if looped.alarmed:
        raise typer.Exit(1)


def lineage(
    path: Annotated[Path, typer.Argument(help="Model, run, curated file, or anything in a loop's folder.")],
    id: Annotated[str | None, typer.Argument(help="A conversation of it.")] = None,
) -> None:
    """What made a model, a conversation or a score, back to where it began."""
    from selfplay import app
    from selfplay.console import loop as console_loop

    console_loop.print_lineage(app.lineage(path, id))
