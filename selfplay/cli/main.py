"""The `selfplay` command: its groups put together. Each command parses, calls one function and prints one result.

Heavy modules are imported inside commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from selfplay.cli import bench, curate, data, generate, loop, train
from selfplay.errors import SelfplayError

cli = typer.Typer(
    help="A user simulator talks to an assistant; the conversations train the next assistant.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

generate.add_commands(cli)
cli.add_typer(data.cli, name="data")
cli.add_typer(train.cli, name="train")
cli.command()(curate.curate)
cli.add_typer(bench.cli, name="bench")
cli.add_typer(loop.cli, name="loop")
cli.command()(loop.lineage)


@cli.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Recipe to print.")] = None) -> None:
    """List the shipped recipes, or print one."""
    from selfplay.console import terminal
    from selfplay.recipe import recipe_text, shipped_recipes

    if name is None:
        terminal.print_recipes(shipped_recipes())
    else:
        terminal.out.print(recipe_text(name), end="", markup=False, soft_wrap=True)


def main() -> None:
    """Run the command; errors meant for the user are printed without a traceback and exit with 1."""
    try:
        cli()
    except SelfplayError as error:
        from selfplay.console import terminal

        terminal.err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
