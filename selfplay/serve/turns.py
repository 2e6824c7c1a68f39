"""Sampling one turn of one role: history to prompt ids, engine, sampled ids back to text. Both speakers stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selfplay.chat.conversation import Role, Turn
from selfplay.chat.rendering import ChatRenderer
from selfplay.chat.speakers import Usage
from selfplay.seeds import derive_seed
from selfplay.serve.backend import Backend, GenerationRequest
from selfplay.serve.config import Sampling

_NEVER = -100.0
"""The lowest bias engines take."""


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """What the engine gave. `ends` is set when the end-of-conversation token came; `cut` when tokens ran out."""

    turn: Turn
    usage: Usage
    ends: bool
    cut: bool
    context: int
    """Tokens of the history, the turn included."""


class Sampler(Protocol):
    """What a speaker needs: the next turn of a conversation, drawn by whatever means."""

    async def sample(self, turns: Sequence[Turn], seed: int, attempt: int) -> SampledTurn | None:
        """The next turn, or None when it no longer fits into the context; see `TurnSampler.sample`."""
        ...


class TurnSampler:
    """Samples the next turn of `role`. Holds no conversation: everything comes with the call."""

    def __init__(
        self,
        backend: Backend,
        renderer: ChatRenderer,
        role: Role,
        sampling: Sampling,
        end_bias: float = 0.0,
        *,
        shorten: bool = False,
        schema: str | None = None,
    ) -> None:
        """Bind an engine and a template.

        Args:
            end_bias: added to the logit of the end-of-conversation token (user side only).
            shorten: where the context has no room for a full turn, take the room there is.
            schema: JSON schema of what is said.
        """
        self._backend = backend
        self._renderer = renderer
        self._role = role
        self._sampling = sampling
        self._shorten = shorten
        self._schema = schema
        end = renderer.end_of_conversation_id if role == "user" else None
        self._end_id = end
        self._stop_ids = (renderer.end_of_turn_id,) if end is None else (renderer.end_of_turn_id, end)
        # A special token inside a turn would be control in the history and missing from the text: never drawn.
        forbidden = set(renderer.special_tokens) - set(self._stop_ids)
        self._bias = tuple((id, _NEVER) for id in sorted(forbidden))
        if end is not None and end_bias:
            self._bias += ((end, end_bias),)

    async def sample(self, turns: Sequence[Turn], seed: int, attempt: int) -> SampledTurn | None:
        """The next turn, or None when a full turn no longer fits into the context.

        Args:
            turns: what this side sees of the conversation so far.
            seed: the conversation's seed; turn number and attempt are mixed in here.
        """
        prompt_ids = self._renderer.prompt_ids(turns, self._role)
        room = self._backend.max_context - len(prompt_ids)
        if room < (1 if self._shorten else self._sampling.max_tokens):
            return None
        sampling = self._sampling
        if room < sampling.max_tokens:
            sampling = sampling.model_copy(update={"max_tokens": room})
        drawn = derive_seed(seed, self._role, len(turns), attempt)
        request = GenerationRequest(prompt_ids, sampling, drawn, self._stop_ids, self._bias, self._schema)
        completion = await self._backend.generate(request)
        sampled = self._renderer.decode(completion.token_ids).strip()
        text, told = self._renderer.parse_sampled(sampled)
        turn = Turn(self._role, text, "sampled", None if told else completion.token_ids)
        stop = completion.finish == "stop"
        usage = Usage(len(prompt_ids), completion.cached_tokens, len(completion.token_ids) + stop)
        ends = told or (self._end_id is not None and completion.stop_id == self._end_id)
        return SampledTurn(turn, usage, ends, not stop, usage.prompt_tokens + usage.sampled_tokens)
