"""Holds conversations: asks the side whose turn it is, commits, goes on.

Knows speakers and a journal, nothing below them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from selfplay.chat.conversation import Role, Turn
from selfplay.chat.events import Admitted, ConversationEnded, Event, Sampled
from selfplay.chat.speakers import MAX_ROUNDS, Speaker, Utterance
from selfplay.engine.scheduler import CapScheduler
from selfplay.store.records import Entry, Plan, Unfinished


class Journal(Protocol):
    """Where entries go; returns once they are safe."""

    async def commit(self, entry: Entry) -> None:
        """Write one entry."""
        ...


@dataclass(slots=True)
class Runner:
    """Plays owed conversations to their end."""

    speakers: Mapping[Role, Speaker]
    journal: Journal
    scheduler: CapScheduler
    max_rounds: int
    on_event: Callable[[Event], None]

    async def run(self, owed: Sequence[Unfinished]) -> None:
        """Play every conversation. What is committed stays, whatever is raised.

        Raises:
            BackendError: an engine is gone.
            StoreError: the journal cannot write.
        """
        waiting = deque(owed)
        running: set[asyncio.Task[None]] = set()
        try:
            while waiting or running:
                for _ in range(self.scheduler.admit(len(waiting), len(running))):
                    running.add(asyncio.create_task(self._hold(waiting.popleft(), running)))
                    self.on_event(Admitted(len(running)))
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running -= done
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _hold(self, owed: Unfinished, running: set[asyncio.Task[None]]) -> None:
        turns = list(owed.turns)
        ended = None
        while ended is None:
            given = () if turns else owed.plan.opening
            utterance = await self._next(owed.plan, [*turns, *given])
            new = given if utterance.turn is None else (*given, utterance.turn)
            turns.extend(new)
            ended = utterance.ended or (MAX_ROUNDS if self._full(turns) else None)
            at = len(turns) - len(new)
            entry = Entry(owed.plan.number, at, new, utterance.usage, utterance.rejected, ended, utterance.cut)
            await self.journal.commit(entry)
            self.on_event(Sampled(utterance.usage, utterance.turn is not None))
        self.on_event(ConversationEnded(ended, _rounds(turns), len(running) - 1))

    async def _next(self, plan: Plan, turns: list[Turn]) -> Utterance:
        role: Role = "assistant" if turns and turns[-1].role == "user" else "user"
        return await self.speakers[role].speak(turns, plan.seed)

    def _full(self, turns: list[Turn]) -> bool:
        return turns[-1:] != [] and turns[-1].role == "assistant" and _rounds(turns) >= self.max_rounds


def _rounds(turns: list[Turn]) -> int:
    return sum(turn.role == "assistant" for turn in turns)
