"""Runs made by hand: conversations into a run folder, as if they had been held."""

import asyncio

from selfplay.chat.conversation import Turn
from selfplay.store.records import ConversationSpec, TurnCommit
from selfplay.store.store import RunStore


def hold(folder, conversations, facts=None):
    """A run of conversations {id: [texts]} that the user ended."""

    async def write():
        plans = [ConversationSpec(number, id, number) for number, id in enumerate(conversations)]
        store = RunStore.create(folder, facts or {}, plans)
        async with store:
            for number, texts in enumerate(conversations.values()):
                roles = ["user", "assistant"] * len(texts)
                turns = tuple(Turn(role, text, "sampled") for role, text in zip(roles, texts, strict=False))
                await store.commit(TurnCommit(number, 0, turns, ended="user_ended"))
        store.close()

    asyncio.run(write())
