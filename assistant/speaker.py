"""The assistant as a speaker: answers, and tries again when it has nothing to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import CONTEXT_FULL, Usage, Utterance, failed
from selfplay.errors import RequestError
from selfplay.serve.turns import Sampler

ATTEMPTS = 3
"""An empty answer cannot be part of a conversation; it is drawn again this often in all."""


class AssistantSpeaker:
    """Samples assistant turns."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """The next assistant turn; drawn again while it is empty, which is counted."""
        usage = Usage()
        rejected: Counter[str] = Counter()
        for attempt in range(ATTEMPTS):
            try:
                sampled = await self._sampler.sample(turns, seed, attempt)
            except RequestError as error:
                return Utterance(None, failed(error.cause), usage, rejected)
            if sampled is None:
                return Utterance(None, CONTEXT_FULL, usage, rejected)
            usage += sampled.usage
            if sampled.turn.content:
                return Utterance(sampled.turn, None, usage, rejected, sampled.cut, sampled.context)
            rejected["empty_reply"] += 1
        return Utterance(None, failed("empty_reply"), usage, rejected)
