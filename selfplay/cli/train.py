"""`selfplay train ...`: both roles and a base for them, merge, inspect. Parses, calls `selfplay.app` and prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

train_cli = typer.Typer(
    help="Train a user simulator, an assistant, or a base for both.", no_args_is_help=True, rich_markup_mode=None
)


def _train(role: str) -> Callable[..., None]:
    """The command that trains one role; the three differ in that word."""

    def command(
        recipe: Annotated[str, typer.Argument(help="YAML file or shipped recipe.")],
        base: Annotated[str | None, typer.Option(help="Model folder or hub name to start from.")] = None,
        data: Annotated[list[str] | None, typer.Option(help="Dataset names or files (repeatable).")] = None,
        out: Annotated[Path | None, typer.Option(help="Output folder.")] = None,
        template: Annotated[str | None, typer.Option(help="Template family; default: the base's own.")] = None,
        processes: Annotated[int | None, typer.Option(min=1, help="Processes, one a device.")] = None,
        zero: Annotated[int | None, typer.Option(min=0, max=3, help="ZeRO stage (DeepSpeed).")] = None,
        offload: Annotated[bool | None, typer.Option(help="Optimiser, with --zero 3 weights too, on the host.")] = None,
        lora: Annotated[bool, typer.Option("--lora", help="Train adapters instead of all weights.")] = False,
        max_steps: Annotated[int | None, typer.Option(help="Stop after this many optimiser steps.")] = None,
        strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
        settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: key.key=value.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what the run would take.")] = False,
        resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    ) -> None:
        from selfplay import app
        from selfplay import recipe as config
        from selfplay.console import generate as console
        from selfplay.console import train as console_train

        overrides: dict[str, Any] = {"base": base, "data.datasets": data or None, "template": template}
        overrides |= {"processes": processes, "zero": zero, "offload": offload, "lora": lora}
        overrides |= {"optim.max_steps": max_steps, "data.strict": True if strict else None}
        overrides["out"] = None if out is None else str(out)
        recipe_ = app.train_recipe(role, recipe, overrides, config.assignments(settings or []))
        if dry_run:
            console_train.print_plan(app.plan_training(recipe_, console.say))
            return
        console_train.print_result(app.train(recipe_, resume=resume, say=console.say), recipe_)

    return command


for _role, _help in (
    ("simulator", "Train UserGPT: loss on user turns and the end."),
    ("assistant", "Train an assistant: loss on its turns."),
    ("base", "Train a base for both: loss on every turn."),
):
    train_cli.command(_role, help=_help)(_train(_role))


@train_cli.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder trained with --lora.")],
    out: Annotated[Path, typer.Option(help="Folder for the whole model.")],
) -> None:
    """Put LoRA adapters into their base, for serving."""
    from selfplay import app
    from selfplay.console import generate as console

    app.merge_adapters(adapter, out)
    console.out.print(f"model: {out}", markup=False, soft_wrap=True)


@train_cli.command()
def inspect(
    source: Annotated[str, typer.Argument(help="File or dataset name.")],
    template: Annotated[str, typer.Option(help="Template family or fastchat conversation name.")] = "chatml",
    role: Annotated[Literal["user", "assistant", "all"], typer.Option(help="Whose tokens carry loss.")] = "user",
    base: Annotated[str, typer.Option(help="Model whose tokenizer to use.")] = "nano",
    number: Annotated[int, typer.Option(help="Which conversation of the file.")] = 1,
    id: Annotated[str | None, typer.Option(help="The conversation with this id.")] = None,
) -> None:
    """Show a conversation's tokens, the supervised ones coloured."""
    from selfplay import app
    from selfplay.console import train as console_train

    console_train.print_tokens(app.inspect(source, template, role, base, number, id))
