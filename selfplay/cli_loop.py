"""`selfplay curate`: what of a run is fit to be learned from. Parses, calls `app`, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_commands(cli: typer.Typer) -> None:
    """The commands between generating and training."""
    cli.command()(curate)


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
    from selfplay import app, config, console, console_data

    overrides = {"against": against or None, "benchmarks": benchmark or None, "memorised_from": memorised_from or None}
    wanted = config.load_recipe(recipe, app.CurateConfig, overrides, config.assignments(settings or []))
    curated = app.curate(sources, out, wanted, console.say)
    console_data.print_curation(curated, out)
