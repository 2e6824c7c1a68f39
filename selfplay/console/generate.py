"""What `selfplay generate`, `show` and `chat` print: progress while a run goes on, tables when it is done.

Draws events, decides nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from selfplay.chat.conversation import Conversation, Role, Turn
from selfplay.chat.speakers import USER_ENDED, Utterance
from selfplay.console.terminal import err, out, printable
from selfplay.generate.events import EngineRestarted, Event, RunOpened, Snapshot, Stopping
from selfplay.store.decisions import Decision
from selfplay.store.export import ExportResult
from selfplay.store.records import TurnCommit
from selfplay.store.summary import RunSummary

if TYPE_CHECKING:
    from selfplay.generate.estimate import CostEstimate
    from selfplay.serve.vllm_backend import EngineSpec

_ROLE_STYLE = {"system": "yellow", "user": "cyan", "assistant": "green"}


class _WithRates(Progress):
    """A progress bar with the rates on lines below it, so that all fit 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the rates."""
        yield self.make_tasks_table(self.tasks)
        yield Text(str(self.tasks[0].fields["rates"]) if self.tasks else "", style="dim")


class RunProgress:
    """A progress bar fed with engine events; a context manager."""

    def __init__(self) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = _WithRates(*columns, console=err)
        self._task = self._progress.add_task("starting engines", total=None, rates="")

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._progress.console.print(line, style="dim", markup=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case RunOpened(conversations, finished):
                self._progress.update(self._task, total=conversations, completed=finished)
            case Snapshot():
                self._progress.update(
                    self._task, description="conversations", completed=event.finished, rates=_rates(event)
                )
            case EngineRestarted(name, deaths, cause):
                self.say(f"engine {name} died ({cause.splitlines()[0]}) and is up again, death {deaths}")
            case Stopping(why):
                self.say(f"stopping, {why}: turns in flight are finished (Ctrl-C again stops at once)")


def _rates(now: Snapshot) -> str:
    rates = (
        f"{now.turns_per_s:6.1f} turns/s  {now.tokens_per_s:6.0f} tok/s  cache hit {now.cache_hit:4.0%}  "
        f"in flight {now.in_flight:3d}"
    )
    details = [f"sampling {now.asked['user']} user + {now.asked['assistant']} assistant"]
    if now.kv_free:
        details.append(f"KV free {' '.join(f'{share:.0%}' for share in now.kv_free.values())}")
    for name, counts in (("resampled", now.resampled), ("faults", now.faults)):
        if counts:
            details.append(f"{name} {sum(counts.values())}")
    return f"{rates}\n  {' · '.join(details)}"


class TerminalSpeaker:
    """A person at the terminal: reads what is said as it is said, types one side's turns."""

    def __init__(self, role: Role) -> None:
        self._role = role
        err.print(f"starting the engine; you are the {role}, /quit ends the conversation", style="dim")

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """Read the next turn; /quit or the end of input ends the conversation."""
        line = ""
        while not line:
            line = (await _ask(f"[bold]{self._role}[/bold]> ")).strip()
        return Utterance(None, USER_ENDED) if line == "/quit" else Utterance(Turn(self._role, line, "human"))

    async def commit(self, entry: TurnCommit) -> None:
        """Show the model's turn, and why the conversation ended."""
        for turn in entry.turns:
            if turn.origin == "sampled":
                print_turn(turn)
        if entry.ended is not None:
            err.print(f"ended: {entry.ended}", style="dim", markup=False)


async def _ask(prompt: str) -> str:
    """A line from the terminal. Read in a daemon thread, so that Ctrl-C need not wait for Enter."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        try:
            line = out.input(prompt)
        except EOFError:
            line = "/quit"
        loop.call_soon_threadsafe(answer.set_result, line)

    threading.Thread(target=read, daemon=True).start()
    return await answer


def print_summary(summary: RunSummary, folder: str) -> None:
    """One table with everything a run is judged by at first sight."""
    table = Table(title=f"{summary.conversations} conversations", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("rounds", f"{summary.rounds.mean:.1f}", _spread(summary.rounds.low, summary.rounds.high))
    for role, words in summary.words.items():
        table.add_row(f"words per {role} turn", f"{words.mean:.1f}", _spread(words.low, words.high))
    table.add_row("turns", f"{summary.turns:,}", f"{summary.sampled_tokens:,} tokens sampled")
    if summary.cut:
        table.add_row("turns cut", f"{summary.cut:,}", "ended by max_tokens")
    table.add_row("prefix-cache hit", f"{summary.cache_hit:.0%}", "of prompt tokens")
    if summary.cost:
        table.add_row("cost", f"{summary.cost:,.2f}", "at the prices given")
    _count_rows(table, "ended", summary.reasons, summary.conversations + summary.unfinished)
    _count_rows(table, "resampled", summary.rejected, None)
    out.print(table)
    out.print(f"run: {folder}", style="bold", markup=False, soft_wrap=True)


def print_conversation(conversation: Conversation, decisions: Sequence[Decision] = ()) -> None:
    """One conversation, a panel a turn; then what curations decided about it."""
    human = all(turn.origin == "human" for turn in conversation.turns)
    ended = conversation.ended or ("" if human else "unfinished")
    out.print(Text(f"{conversation.id}  {conversation.rounds} rounds  {ended}", "bold"))
    for turn in conversation.turns:
        print_turn(turn, with_origin=not human)
    for decision in decisions:
        out.print(str(decision), markup=False, soft_wrap=True)


def print_export(result: ExportResult, path: Path) -> None:
    """How many conversations were written, and what was left out."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in result.left_out.most_common()) or "none"
    out.print(f"{result.rows} conversations written to {path}; left out: {left_out}", markup=False, soft_wrap=True)


def print_turn(turn: Turn, *, with_origin: bool = True) -> None:
    """One turn. Text of models is data: markup in it is not interpreted."""
    title = f"{turn.role} ({turn.origin})" if with_origin and turn.origin != "sampled" else turn.role
    style = _ROLE_STYLE[turn.role]
    out.print(Panel(Text(printable(turn.content)), title=title, title_align="left", border_style=style, expand=False))


def print_estimate(estimate: CostEstimate) -> None:
    """What a run would take."""
    title = f"{estimate.conversations:,} conversations, foreseen from {estimate.measured}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("turns", f"{estimate.turns:,.0f}", f"± {estimate.spread:.0%}, as all figures below")
    for role, tokens in estimate.sampled_tokens.items():
        table.add_row(f"{role} tokens sampled", f"{tokens:,.0f}", f"{estimate.prompt_tokens[role]:,.0f} of prompts")
    start = f"and {estimate.start_seconds:.0f} s until the engines are up"
    table.add_row("time", f"≤ {timedelta(seconds=round(estimate.seconds))}", start)
    table.add_row("disk", f"{estimate.disk_bytes / 2**20:,.1f} MiB", "run folder")
    if estimate.cost:
        table.add_row("cost", f"{estimate.cost:,.2f}", "at the prices given")
    out.print(table)


def print_placement(specs: Sequence[EngineSpec]) -> None:
    """Which engine runs where."""
    rows = [
        (
            spec.name,
            f"GPU {', '.join(map(str, spec.devices))}" if spec.devices else f"CPU cores {_ranges(spec.cores)}",
            f"{spec.memory_share:.0%} of GPU memory" if spec.devices else f"{spec.kv_gib} GiB KV cache",
            str(spec.max_num_seqs),
            str(spec.model),
        )
        for spec in specs
    ]
    table = Table("engine", "where", "memory", "most requests", Column("model", overflow="fold"))
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table if rows else "no engines to start: both sides are servers")


def _ranges(cores: Sequence[int]) -> str:
    """0-3, 8: consecutive numbers as ranges."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _count_rows(table: Table, name: str, counts: Mapping[str, int], total: int | None) -> None:
    for number, (reason, count) in enumerate(sorted(counts.items(), key=lambda item: -item[1])):
        share = f"{count / total:.0%}" if total else "attempts"
        table.add_row(name if number == 0 else "", f"{count}", Text(f"{reason} · {share}"))


def _spread(low: float, high: float) -> str:
    return f"10th–90th percentile {low:.0f}–{high:.0f}"
