"""`selfplay loop run|status|report` and `selfplay lineage`: the train-generate loop, and what made its results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfplay.cli.options import Settings

cli = typer.Typer(
    help="Run the train-generate loop: self-play, curation, SFT and evaluation, for N iterations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Argument(help="Folder of the loop.")]


@cli.command()
def run(
    recipe: Annotated[str, typer.Argument(help="YAML file or shipped recipe.")],
    out: Annotated[Path, typer.Option(help="Folder of the loop.")],
    iterations: Annotated[int | None, typer.Option(help="How many.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the conversations.")] = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything the recipe names; start nothing.")
    ] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only measure what the loop would take.")] = False,
) -> None:
    """Run every iteration, or resume: completed stages are skipped, interrupted ones resume."""
    from selfplay.console import loop as console
    from selfplay.console.generate import RunProgress
    from selfplay.console.terminal import say
    from selfplay.loop.config import LoopConfig
    from selfplay.recipe import assignments, load_recipe

    overrides = {"iterations": iterations, "seed": seed}
    config = load_recipe(recipe, LoopConfig, overrides, assignments(settings or []))
    if dry_run:
        from selfplay.loop.run import check_loop

        check_loop(config, out, say)
    elif estimate:
        from selfplay.loop.estimate import estimate_loop

        console.print_loop_estimate(estimate_loop(config, out, say))
    else:
        from selfplay.loop.run import loop

        state = loop(config, out, say, RunProgress)
        console.print_status(state)
        if state.alarmed:
            raise typer.Exit(1)


@cli.command()
def status(folder: Folder) -> None:
    """Show how far a loop is: iterations × stages, what went wrong, and why it is over."""
    from selfplay.console.loop import print_status
    from selfplay.loop.status import loop_status

    print_status(loop_status(folder))


@cli.command()
def report(folder: Folder) -> None:
    """Write a page with plots of a loop, as HTML and Markdown."""
    from selfplay.console.loop import print_pages
    from selfplay.loop.report.build import loop_report

    print_pages(loop_report(folder))


def lineage(
    path: Annotated[Path, typer.Argument(help="Model, run, curated file, or anything in a loop's folder.")],
    id: Annotated[str | None, typer.Argument(help="A conversation of it.")] = None,
) -> None:
    """What made a model, a conversation or a score, back to where it began."""
    from selfplay.console.loop import print_lineage
    from selfplay.loop.lineage import lineage

    print_lineage(lineage(path, id))
