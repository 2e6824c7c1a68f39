"""The assistant as a speaker in self-play: it samples the next answer, and samples again when the answer is empty.

It does not know when a conversation ends; that is decided by the user's side and by the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import CONTEXT_FULL, Usage, Utterance, failed
from selfplay.errors import RequestError
from selfplay.serve.turns import Sampler

ATTEMPTS = 3
"""Number of attempts at an answer: an empty answer cannot be part of a conversation and is sampled again."""


class AssistantSpeaker:
    """Samples assistant turns."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """Sample the next assistant turn; empty answers are counted and sampled again, up to `ATTEMPTS` in all."""
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
