"""`selfplay data ...`: clean, mix, and the lists of datasets and formats. Parses, calls `selfplay.app` and prints."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

data_cli = typer.Typer(
    help="Human conversations: clean them, mix them, find them.", no_args_is_help=True, rich_markup_mode=None
)

Sources = Annotated[list[str], typer.Argument(help="Catalogue names, files, or organisation/name on the hub.")]


@data_cli.command()
def clean(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    recipe: Annotated[str, typer.Option(help="YAML file or shipped recipe.")] = "clean/default",
    format: Annotated[str | None, typer.Option(help="Source schema, if not recognised; see `data formats`.")] = None,
    html: Annotated[bool | None, typer.Option(help="HTML turns become Markdown.")] = None,
    artefacts: Annotated[bool | None, typer.Option(help='Take out "Copy code" and "2 / 2".')] = None,
    personal: Annotated[
        Literal["keep", "mask", "drop"] | None, typer.Option(help="E-mail, phone, keys, card numbers.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Keep only this language: en, zh ... (repeatable).")
    ] = None,
    min_rounds: Annotated[int | None, typer.Option(help="Fewest rounds; 2 drops single-turn ones.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Cut longer ones into pieces of this many tokens.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder of the tokenizer that counts them.")] = None,
    duplicates: Annotated[bool | None, typer.Option(help="Drop exact repetitions.")] = None,
    near_duplicates: Annotated[
        float | None, typer.Option(help="Drop what is this similar to an earlier one (0.8).")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Stop at the first bad row.")] = None,
) -> None:
    """Turn dumps of conversations into clean, deduplicated, counted ones."""
    from selfplay import app
    from selfplay import recipe as config
    from selfplay.console import data as console_data

    given = dict(locals())
    overrides = {name: given[name] for name in app.CleanConfig.model_fields if name in given}
    overrides["languages"] = language or None
    settings = config.load_recipe(recipe, app.CleanConfig, overrides)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleared away
    with console_data.cleaning_progress() as progress:
        tally = app.clean(sources, out, settings, format=format, workers=workers, on_progress=progress)
    console_data.print_cleaning(tally, out)


@data_cli.command()
def mix(
    sources: Annotated[list[str], typer.Argument(help="NAME or NAME=WEIGHT; files work too.")],
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl and validation.jsonl.")],
    held_out: Annotated[float, typer.Option(min=0.0001, max=0.9999, help="Share held out, by conversation.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Same seed, same mixture in the same order.")] = 0,
) -> None:
    """Mix datasets by weight, shuffled, with a validation split."""
    from selfplay import app
    from selfplay.console import generate as console

    mixed = app.mix(sources, out, held_out=held_out, seed=seed)
    total = mixed.train.total()
    rows = [
        (name, f"{mixed.read[name]:,}", f"{mixed.train[name]:,}", f"{mixed.train[name] / total:.1%}",
         f"{mixed.validation[name]:,}")
        for name in mixed.read
    ]  # fmt: skip
    console.print_rows("mixture", ("dataset", "conversations", "train", "share", "validation"), rows)
    for reason, count in mixed.loaded.refused.counts.most_common():
        console.say(f"left out {count} rows: {reason} (first: {mixed.loaded.refused.examples[reason]})")


@data_cli.command("list")
def list_datasets(
    text: Annotated[str | None, typer.Argument(help="Part of a name or title.")] = None,
    language: Annotated[Literal["EN", "CN", "EN/CN", "ML"] | None, typer.Option(help="ML: several.")] = None,
    generation: Annotated[
        Literal["HG", "SI", "MIX", "COL"] | None, typer.Option(help="By people, models, both; a collection.")
    ] = None,
) -> None:
    """List the catalogue."""
    from selfplay import app
    from selfplay.console import data as console_data

    console_data.print_datasets(app.datasets(language, generation, text or ""))


@data_cli.command()
def show(name: Annotated[str, typer.Argument(help="Catalogue name, or a file.")]) -> None:
    """Show one dataset: what it is, where it is, and its first conversation where the file is here."""
    from selfplay import app
    from selfplay.console import data as console_data
    from selfplay.console import generate as console

    if not Path(name).is_file():
        entry = app.entry_named(name)
        console_data.print_dataset(entry, app.local_file(entry))
    if (first := app.first_conversation(name)) is not None:
        console.print_conversation(first)


@data_cli.command()
def formats() -> None:
    """List the source schemas that can be read."""
    from selfplay import app
    from selfplay.console import data as console_data

    console_data.print_formats(app.FORMATS.values())
