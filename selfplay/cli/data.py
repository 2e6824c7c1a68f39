"""`selfplay data ...`: clean, mix, and the lists of datasets and formats."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

cli = typer.Typer(
    help="Human conversations: clean them, mix them, find them.", no_args_is_help=True, rich_markup_mode=None
)

Sources = Annotated[list[str], typer.Argument(help="Catalogue names, files, or organisation/name on the hub.")]


@cli.command()
def clean(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    recipe: Annotated[str, typer.Option(help="YAML file or shipped recipe.")] = "clean/default",
    format: Annotated[str | None, typer.Option(help="Source schema, if not recognised; see `data formats`.")] = None,
    html: Annotated[bool | None, typer.Option(help="HTML turns become Markdown.")] = None,
    artefacts: Annotated[bool | None, typer.Option(help='Take out "Copy code" and "2 / 2".')] = None,
    pii: Annotated[
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
    given = dict(locals())
    from selfplay.console import data as console
    from selfplay.data.cleaning.config import CleanConfig
    from selfplay.data.cleaning.pipeline import clean
    from selfplay.recipe import load_recipe

    overrides = {name: given[name] for name in CleanConfig.model_fields if name in given}
    overrides["languages"] = language or None
    config = load_recipe(recipe, CleanConfig, overrides)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleared away
    with console.cleaning_progress() as progress:
        tally = clean(sources, out, config, format=format, workers=workers, on_progress=progress)
    console.print_cleaning(tally, out)


@cli.command()
def mix(
    sources: Annotated[list[str], typer.Argument(help="NAME or NAME=WEIGHT; files work too.")],
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl and validation.jsonl.")],
    held_out: Annotated[float, typer.Option(min=0.0001, max=0.9999, help="Share held out, by conversation.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Same seed, same mixture in the same order.")] = 0,
) -> None:
    """Mix datasets by weight, shuffled, with a validation split."""
    from selfplay.console.data import print_mixture
    from selfplay.data.mixing import mix

    print_mixture(mix(sources, out, held_out=held_out, seed=seed))


@cli.command("list")
def list_datasets(
    text: Annotated[str | None, typer.Argument(help="Part of a name or title.")] = None,
    language: Annotated[Literal["EN", "CN", "EN/CN", "ML"] | None, typer.Option(help="ML: several.")] = None,
    generation: Annotated[
        Literal["HG", "SI", "MIX", "COL"] | None, typer.Option(help="By people, models, both; a collection.")
    ] = None,
) -> None:
    """List the catalogue."""
    from selfplay.console.data import print_datasets
    from selfplay.data.catalogue import datasets

    print_datasets(datasets(language, generation, text or ""))


@cli.command()
def show(name: Annotated[str, typer.Argument(help="Catalogue name, file, or run folder.")]) -> None:
    """Show one dataset: what it is, where it is, and its first conversation where the file is here."""
    from selfplay.console.data import print_dataset
    from selfplay.console.generate import print_conversation
    from selfplay.data.catalogue import dataset_named, local_file
    from selfplay.data.loading import first_conversation

    if not Path(name).exists():
        dataset = dataset_named(name)
        print_dataset(dataset, local_file(dataset))
    if (first := first_conversation(name)) is not None:
        print_conversation(first)


@cli.command()
def formats() -> None:
    """List the source schemas that can be read."""
    from selfplay.console.data import print_formats
    from selfplay.data.formats import FORMATS

    print_formats(FORMATS.values())
