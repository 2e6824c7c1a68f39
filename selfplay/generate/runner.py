"""The runner of conversations: it asks the side whose turn it is, commits the turn, and goes on.

Knows speakers, a journal and the scheduler, nothing below them. One task a conversation; nothing here looks through all
of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selfplay.chat.conversation import Role, Turn
from selfplay.chat.speakers import MAX_ROUNDS, Speaker, Utterance
from selfplay.generate.events import Admitted, Asked, ConversationEnded, Event, Sampled
from selfplay.generate.scheduler import InFlight, Scheduler
from selfplay.store.records import PendingConversation, TurnCommit


class TurnLog(Protocol):
    """Where entries go; returns once they are safe."""

    async def commit(self, entry: TurnCommit) -> None:
        """Write one entry."""
        ...


@dataclass(slots=True, eq=False)
class Runner:
    """Plays owed conversations to their end, or until `stop`. Used once."""

    speakers: Mapping[Role, Mapping[int, Speaker]]
    """Each side's speaker on each of the engines that serve it."""
    turn_log: TurnLog
    scheduler: Scheduler
    max_rounds: int
    on_event: Callable[[Event], None]
    _pending: Iterator[PendingConversation] = field(default_factory=lambda: iter(()))
    _next: PendingConversation | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _preempted: dict[InFlight, asyncio.Future[None]] = field(default_factory=dict)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _error: BaseException | None = None
    _stopping: bool = False
    _cancelled: int = 0

    async def run(self, pending: Iterable[PendingConversation]) -> bool:
        """Play conversations in the given order. What is committed stays, whatever is raised.

        Returns:
            Whether all have ended; False after `stop`.

        Raises:
            BackendError: an engine is gone.
            StoreError: the journal cannot write.
        """
        self._pending = iter(pending)
        self._next = next(self._pending, None)
        try:
            self._fill()
            if self._tasks:
                await self._over.wait()
        finally:
            self._stopping = True  # those that end now make room for nobody
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error
        return self._next is None and not self._cancelled

    def stop(self) -> None:
        """Ask for no further turns; those asked for are still finished and committed."""
        self._stopping = True
        for waits in self._preempted.values():
            if not waits.done():
                waits.set_result(None)

    def _fill(self) -> None:
        """Start whatever has room now: preempted conversations, then new ones."""
        if self._stopping or self._error is not None:
            return
        while (back := self.scheduler.resume_preempted()) is not None:
            self._preempted.pop(back).set_result(None)
        while self._next is not None and (conversation := self.scheduler.admit(_tokens(self._next.turns))) is not None:
            task = asyncio.create_task(self._run_conversation(self._next, conversation))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            self.on_event(Admitted(self.scheduler.in_flight))
            self._next = next(self._pending, None)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        else:
            try:
                self._fill()
            except Exception as error:  # reading the next conversation failed; `run` reports it
                self._error = error
        if self._error is not None or not self._tasks:
            self._over.set()

    async def _run_conversation(self, pending: PendingConversation, conversation: InFlight) -> None:
        turns = list(pending.turns)
        while not self._stopping:
            given = () if turns else pending.spec.opening
            role = _whose_turn(turns or given)
            self.on_event(Asked(role))
            utterance = await self.speakers[role][conversation.histories[role].engine].speak(
                [*turns, *given], pending.spec.seed
            )
            ended = await self._commit(pending.spec.number, turns, given, role, utterance)
            if ended is not None:
                self.scheduler.finish(conversation)
                self.on_event(ConversationEnded(ended, _rounds(turns), self.scheduler.in_flight))
                return
            if not self.scheduler.on_turn(conversation, role, utterance.context) and not self._stopping:
                await self._wait_preempted(conversation)
        self._cancelled += 1

    async def _commit(
        self, number: int, turns: list[Turn], given: tuple[Turn, ...], role: Role, utterance: Utterance
    ) -> str | None:
        """Write down what came and append it to `turns`; the reason if the conversation is over."""
        at = len(turns)
        new = given if utterance.turn is None else (*given, utterance.turn)
        turns.extend(new)
        ended = utterance.ended or (MAX_ROUNDS if self._full(turns) else None)
        await self.turn_log.commit(
            TurnCommit(number, at, new, utterance.usage, utterance.rejected, ended, utterance.cut)
        )
        self.on_event(Sampled(role, utterance.usage, utterance.turn is not None, utterance.rejected))
        return ended

    async def _wait_preempted(self, conversation: InFlight) -> None:
        waits = self._preempted[conversation] = asyncio.get_running_loop().create_future()
        self._fill()  # what it gave up may be what another waits for
        await waits

    def _full(self, turns: list[Turn]) -> bool:
        return turns[-1:] != [] and turns[-1].role == "assistant" and _rounds(turns) >= self.max_rounds


def _whose_turn(turns: Sequence[Turn]) -> Role:
    return "assistant" if turns and turns[-1].role == "user" else "user"


def _rounds(turns: list[Turn]) -> int:
    return sum(turn.role == "assistant" for turn in turns)


def _tokens(turns: Sequence[Turn]) -> dict[Role, int]:
    """About what a conversation taken up again holds with either side, before its first prompt tells exactly."""
    count = sum(len(turn.content) // 4 if turn.token_ids is None else len(turn.token_ids) for turn in turns)
    return {"user": count, "assistant": count}
