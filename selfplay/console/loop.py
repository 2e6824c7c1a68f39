"""The printed results of `selfplay loop` and `selfplay lineage`: status, cost estimate, provenance tree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from selfplay.console.terminal import out, print_rows
from selfplay.loop.config import STAGES
from selfplay.loop.metrics import MetricValue, by_iteration, number
from selfplay.loop.status import progress_of

if TYPE_CHECKING:
    from selfplay.loop.estimate import StageEstimate
    from selfplay.loop.ledger import StageRecord
    from selfplay.loop.lineage import Artefact
    from selfplay.loop.status import LoopState

_SHOWN = {
    "simulator": {"trained_on": "learned from", "eval_loss": "held-out loss"},
    "generate": {"conversations": "held", "rounds": "rounds"},
    "curate": {"kept": "kept"},
    "assistant": {"trained_on": "learned from", "human_share": "people's share", "eval_loss": "held-out loss"},
    "bench": {"bits_per_byte": "bits/byte", "gain": "gain", "naturalness_auc": "AUC"},
}
"""The key figures of each stage; the report has all."""
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "stale": "dim"}


def print_status(looped: LoopState) -> None:
    """A row an iteration, a column a stage: state, duration, key figures; then what is wrong, and why it is over."""
    entries = {(entry.iteration, entry.stage): entry for entry in looped.entries}
    stages = [stage for stage in STAGES if any(key[1] == stage for key in entries)]
    table = Table(title=f"loop {looped.folder}", title_justify="left", show_lines=True)
    for name in ("", *stages):
        table.add_column(name, justify="left")
    sets = looped.config.bench.sets if looped.config.bench.judge is not None else ()
    for iteration in dict.fromkeys(entry.iteration for entry in looped.entries):
        cells = (_cell(looped, entries.get((iteration, stage)), [Path(name).stem for name in sets]) for stage in stages)
        table.add_row(str(iteration) if iteration else "0, before", *cells)
    out.print(table)
    for line, style in _remarks(looped):
        out.print(line, style=style, markup=False, soft_wrap=True)


def print_loop_estimate(stages: Sequence[StageEstimate]) -> None:
    """A row a stage: what one takes, how often, and all of it."""
    rows = [
        (
            one.stage,
            str(timedelta(seconds=round(one.seconds))),
            str(one.times),
            str(timedelta(seconds=round(one.seconds * one.times))),
            f"{one.tokens * one.times:,.0f}" if one.tokens else "",
            _mib(one.disk * one.times),
            one.remark,
        )
        for one in stages
    ]
    seconds = sum(one.seconds * one.times for one in stages)
    tokens = sum(one.tokens * one.times for one in stages)
    disk = sum(one.disk * one.times for one in stages)
    peak = max(one.peak for one in stages)
    while_it_runs = f"and {_mib(peak)} of checkpoints at the most"
    rows.append(("all", "", "", str(timedelta(seconds=round(seconds))), f"{tokens:,.0f}", _mib(disk), while_it_runs))
    print_rows("foreseen from a sample", ("stage", "one", "times", "in all", "tokens", "disk", "remark"), rows)


def _mib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def print_pages(pages: Sequence[Path]) -> None:
    """The paths of written pages, a line each."""
    for page in pages:
        out.print(str(page), markup=False, soft_wrap=True)


def print_lineage(made: Artefact) -> None:
    """A tree: what it is, how it was made, what from."""
    out.print(_branch(Tree(Text(made.what, style="bold")), made))


def _branch(tree: Tree, made: Artefact) -> Tree:
    for name, fact in made.facts:
        if fact:
            tree.add(Text.assemble((f"{name}: ", "dim"), fact))
    for parent in made.parents:
        _branch(tree.add(Text(f"from {parent.what}", style="bold")), parent)
    return tree


def _remarks(looped: LoopState) -> list[tuple[str, str]]:
    """What broke, what drifts, and how far the loop is."""
    broken = [entry for entry in looped.entries if entry.error is not None]
    lines = [(f"iteration {entry.iteration}, {entry.stage} {entry.state}: {entry.error}", "red") for entry in broken]
    for one in looped.checked:
        if one.alarm:
            alarm = one.limit.action == "stop"
            lines.append(
                (f"{'ALARM' if alarm else 'warning'}, iteration {one.iteration}: {one}", "red" if alarm else "yellow")
            )
    planned = looped.config.iterations
    done = sum(entry.stage == "bench" and entry.state == "done" and entry.iteration > 0 for entry in looped.entries)
    if looped.stopped is not None:
        lines.append((f"stopped: {looped.stopped}; the same command goes on once that is dealt with", "yellow"))
    ended = "all are done" if done >= planned and looped.stopped is None else "not running"
    told = "it runs" if looped.running else ended
    return [*lines, (f"{done} of {planned} iterations, {told}", "")]


def _cell(looped: LoopState, entry: StageRecord | None, sets: list[str]) -> Text:
    if entry is None:
        return Text("")
    took = "" if entry.seconds is None else f" {timedelta(seconds=round(entry.seconds))}"
    cell = Text(entry.state + took, style=_STYLES[entry.state])
    if (progress := progress_of(looped, entry)) is not None:
        cell.append(f"\n{progress}", style="default")
    figures = by_iteration([(entry.iteration, entry.figures)])[entry.iteration]
    shown = {**_SHOWN[entry.stage], **({name: name for name in sets} if entry.stage == "bench" else {})}
    for name, title in shown.items():
        if name in figures:
            cell.append(f"\n{title} {_brief(figures[name])}", style="default")
    return cell


def _brief(value: MetricValue) -> str:
    """A figure and half its interval."""
    spread = "" if value.low is None or value.high is None else f" ±{(value.high - value.low) / 2:.3f}"
    return number(value.value) + spread
