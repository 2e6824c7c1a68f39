"""`selfplay train ...`: a user simulator, an assistant or a base for both; adapters merged, masks shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from selfplay.train.roles import TrainedSide

cli = typer.Typer(
    help="Train a user simulator, an assistant, or a base for both.", no_args_is_help=True, rich_markup_mode=None
)


def _side(name: str) -> TrainedSide:
    from assistant.train import ASSISTANT
    from selfplay.train.roles import BASE
    from simulator.train import SIMULATOR

    return {"simulator": SIMULATOR, "assistant": ASSISTANT, "base": BASE}[name]


def _train(name: str) -> Callable[..., None]:
    """The command that trains one side; the three differ in that word."""

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
        from selfplay.console import train as console
        from selfplay.console.terminal import say
        from selfplay.recipe import assignments
        from selfplay.train.roles import load_training_recipe

        side = _side(name)
        overrides: dict[str, Any] = {"base": base, "data.datasets": data or None, "template": template}
        overrides |= {"processes": processes, "zero": zero, "offload": offload, "lora": lora}
        overrides |= {"optim.max_steps": max_steps, "data.strict": True if strict else None}
        overrides["output_dir"] = None if out is None else str(out)
        config = load_training_recipe(side, recipe, overrides, assignments(settings or []))
        if dry_run:
            from selfplay.train.plan import dry_run as plan_training

            console.print_plan(plan_training(config, side, say))
        else:
            from selfplay.train.run import train

            console.print_result(train(config, side, resume=resume, say=say), config)

    return command


for _name, _help in (
    ("simulator", "Train UserGPT: loss on user turns and the end."),
    ("assistant", "Train an assistant: loss on its turns."),
    ("base", "Train a base for both: loss on every turn."),
):
    cli.command(_name, help=_help)(_train(_name))


_BY_ROLE = {"user": "simulator", "assistant": "assistant", "all": "base"}


@cli.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder trained with --lora.")],
    out: Annotated[Path, typer.Option(help="Folder for the whole model.")],
) -> None:
    """Put LoRA adapters into their base, for serving."""
    from selfplay.console.train import print_merged
    from selfplay.train.merge import merge

    merge(adapter, out)
    print_merged(out)


@cli.command()
def inspect(
    source: Annotated[str, typer.Argument(help="File or dataset name.")],
    template: Annotated[str, typer.Option(help="Template family or fastchat conversation name.")] = "chatml",
    role: Annotated[Literal["user", "assistant", "all"], typer.Option(help="Whose tokens carry loss.")] = "user",
    base: Annotated[str, typer.Option(help="Model whose tokenizer to use.")] = "nano",
    number: Annotated[int, typer.Option(help="Which conversation of the file.")] = 1,
    id: Annotated[str | None, typer.Option(help="The conversation with this id.")] = None,
) -> None:
    """Show a conversation's tokens, the supervised ones coloured."""
    from selfplay.console.train import print_tokens
    from selfplay.train.inspect import inspect

    print_tokens(inspect(source, template, _side(_BY_ROLE[role]), base, number, id))
