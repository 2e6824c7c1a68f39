"""`selfplay curate`: which conversations are fit to be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfplay.cli.options import Settings


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
    settings: Settings = None,
) -> None:
    """Keep the conversations that are fit to be learned from; say why of the others. Nothing is deleted."""
    from selfplay.console.curate import print_curation
    from selfplay.console.terminal import say
    from selfplay.curate.config import CurateConfig
    from selfplay.curate.run import curate
    from selfplay.recipe import assignments, load_recipe

    overrides = {
        "dedup_against": against or None,
        "decontaminate_against": benchmark or None,
        "memorization_reference": memorised_from or None,
    }
    config = load_recipe(recipe, CurateConfig, overrides, assignments(settings or []))
    print_curation(curate(sources, out, config, say), out)
