"""A conversation between a person at a terminal and the model of the other side."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from selfplay.chat.conversation import Role
from selfplay.chat.speakers import Speaker
from selfplay.generate.config import GenerateConfig
from selfplay.generate.participants import open_participants, resolve_sides
from selfplay.generate.plan import conversation_specs
from selfplay.generate.run import no_events
from selfplay.generate.runner import Runner, TurnLog
from selfplay.generate.scheduler import EngineBudget, Scheduler
from selfplay.store.records import PendingConversation


class PersonSpeaker(Speaker, TurnLog, Protocol):
    """Somebody at a terminal: speaks for one side, and is shown everything that is said."""


def chat(config: GenerateConfig, role: Role, person: PersonSpeaker) -> None:
    """Hold one conversation between a person, who takes `role`, and the model of the other side. Nothing is stored.

    Raises:
        SelfplayError: the model cannot be used, or its engine is gone.
    """
    asyncio.run(_chat(config, role, person))


async def _chat(config: GenerateConfig, role: Role, person: PersonSpeaker) -> None:
    other: Role = "user" if role == "assistant" else "assistant"
    spec = next(conversation_specs(config))
    with TemporaryDirectory() as logs:
        async with open_participants(config, resolve_sides(config, [other]), Path(logs), no_events) as participants:
            number = participants.add(EngineBudget())
            scheduler = Scheduler(participants.budgets, {**participants.engines_by_role, role: [number]}, 1)
            runner = Runner(
                {**participants.speakers, role: {number: person}}, person, scheduler, sys.maxsize, no_events
            )
            await runner.run([PendingConversation(spec, ())])
