"""What a person sees in the terminal: progress while a run goes on, tables when it is done.

Draws events, decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from selfplay.chat.conversation import Conversation, Role, Turn
from selfplay.chat.events import Admitted, ConversationEnded, Event, Planned, Sampled
from selfplay.chat.speakers import USER_ENDED, Usage, Utterance
from selfplay.store.summary import RunSummary

out = Console(highlight=False)
"""Results."""
err = Console(stderr=True, highlight=False)
"""Progress and errors."""

_ROLE_STYLE = {"system": "yellow", "user": "cyan", "assistant": "green"}


class _TwoLines(Progress):
    """A progress bar with the rates on a line below it, so that both fit 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the rates."""
        yield self.make_tasks_table(self.tasks)
        yield Text(str(self.tasks[0].fields["rates"]) if self.tasks else "", style="dim")


class RunProgress:
    """A progress bar fed with engine events; a context manager."""

    def __init__(self) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = _TwoLines(*columns, console=err)
        self._task = self._progress.add_task("starting engines", total=None, rates="")
        self._turns = 0
        self._usage = Usage()
        self._in_flight = 0
        self._started: float | None = None

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case Planned(conversations, finished):
                self._progress.update(self._task, total=conversations, completed=finished)
                return
            case Admitted(in_flight):
                self._in_flight = in_flight
            case Sampled(usage, turn_taken):
                self._turns += turn_taken
                self._usage += usage
            case ConversationEnded(_, _, in_flight):
                self._in_flight = in_flight
                self._progress.advance(self._task)
        self._progress.update(self._task, description="conversations", rates=self._rates())

    def _rates(self) -> str:
        self._started = self._started or time.monotonic()
        seconds = max(time.monotonic() - self._started, 1e-6)
        return (
            f"{self._turns / seconds:6.1f} turns/s  {self._usage.sampled_tokens / seconds:6.0f} tok/s  "
            f"cache hit {self._usage.cache_hit:4.0%}  in flight {self._in_flight:3d}"
        )


class TerminalPerson:
    """A person at the terminal as a speaker: sees what the other side says, types the next turn."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._greeted = False

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """Show the last turn and read a line; /quit or the end of input ends the conversation."""
        if not self._greeted:
            err.print(f"you are the {self._role}; /quit ends the conversation", style="dim")
            self._greeted = True
        if turns and turns[-1].role not in (self._role, "system"):
            print_turn(turns[-1])
        line = ""
        while not line:
            try:
                line = (await asyncio.to_thread(out.input, f"[bold]{self._role}[/bold]> ")).strip()
            except EOFError:
                line = "/quit"
        if line == "/quit":
            return Utterance(None, USER_ENDED)
        return Utterance(Turn(self._role, line, "human"))


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
    table.add_row("prefix-cache hit", f"{summary.cache_hit:.0%}", "of prompt tokens")
    _count_rows(table, "ended", summary.reasons, summary.conversations + summary.unfinished)
    _count_rows(table, "resampled", summary.rejected, None)
    out.print(table)
    out.print(f"run: {folder}", style="bold", soft_wrap=True)


def print_conversation(conversation: Conversation) -> None:
    """One conversation, a panel a turn."""
    out.print(Text(f"{conversation.id}  {conversation.rounds} rounds  {conversation.ended or 'unfinished'}", "bold"))
    for turn in conversation.turns:
        print_turn(turn)


def print_turn(turn: Turn) -> None:
    """One turn. Text of models is data: markup in it is not interpreted."""
    title = turn.role if turn.origin == "sampled" else f"{turn.role} ({turn.origin})"
    style = _ROLE_STYLE[turn.role]
    out.print(Panel(Text(turn.content), title=title, title_align="left", border_style=style, expand=False))


def print_recipes(recipes: Mapping[str, str]) -> None:
    """Names and descriptions of recipes."""
    table = Table("recipe", "what it does")
    for name, description in recipes.items():
        table.add_row(name, description)
    out.print(table)


def print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _count_rows(table: Table, name: str, counts: Mapping[str, int], total: int | None) -> None:
    for number, (reason, count) in enumerate(sorted(counts.items(), key=lambda item: -item[1])):
        share = f"{count / total:.0%}" if total else "attempts"
        table.add_row(name if number == 0 else "", f"{count}", f"{reason} · {share}")


def _spread(low: float, high: float) -> str:
    return f"10th–90th percentile {low:.0f}–{high:.0f}"
