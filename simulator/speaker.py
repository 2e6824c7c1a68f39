"""The user simulator as a speaker in self-play: it samples the next user turn, or ends the conversation.

It knows the guardrails by name only; the rules are in `simulator.guardrails`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import CONTEXT_FULL, USER_ENDED, Usage, Utterance, failed, guardrail
from selfplay.errors import RequestError
from selfplay.serve.turns import Sampler
from simulator.guardrails import Guardrails, broken_rule


class UserSpeaker:
    """Samples user turns under guardrails. The assistant's system prompt is hidden from it, as from human users."""

    def __init__(self, sampler: Sampler, guardrails: Guardrails) -> None:
        self._sampler = sampler
        self._guardrails = guardrails

    async def speak(self, turns: Sequence[Turn], seed: int) -> Utterance:
        """Sample the next user turn; a turn that breaks a guardrail is resampled, at most `resamples` times."""
        seen = [turn for turn in turns if turn.role != "system"]
        usage = Usage()
        rejected: Counter[str] = Counter()
        broken = None
        for attempt in range(1 + self._guardrails.resamples):
            try:
                sampled = await self._sampler.sample(seen, seed, attempt)
            except RequestError as error:
                return Utterance(None, failed(error.cause), usage, rejected)
            if sampled is None:
                return Utterance(None, CONTEXT_FULL, usage, rejected)
            usage += sampled.usage
            ends = sampled.ends and not sampled.turn.content  # text before the end token is a turn of its own
            broken = broken_rule(self._guardrails, seen, sampled.turn.content, ends=ends, cut=sampled.cut)
            if broken is None:
                if ends:
                    return Utterance(None, USER_ENDED, usage, rejected)
                return Utterance(sampled.turn, None, usage, rejected, sampled.cut, sampled.context)
            rejected[broken] += 1
        assert broken is not None, "the loop runs at least once"
        return Utterance(None, guardrail(broken), usage, rejected)
