"""The protocol of an engine: prompt ids in, sampled ids out. Knows nothing of roles, templates or text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from selfplay.serve.config import Sampling


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One turn to sample. Equal requests (seed included) give equal completions where engines compute in float32."""

    prompt_ids: list[int]
    sampling: Sampling
    seed: int
    stop_ids: tuple[int, ...]
    """Tokens that end the turn; the one met is reported as `stop_id`, not as part of the ids."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit) at every position."""
    schema: str | None = None
    """JSON schema the text follows; engines started for it only."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled ids without the stop token. Counts are in tokens."""

    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    stop_id: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the prefix cache already held."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """An engine's key-value memory, in tokens."""

    capacity: int
    free: int
    """Held by no running request. What the prefix cache keeps of finished ones counts as free: it can be evicted."""
    block: int
    """Memory is given out in blocks of this many tokens; only whole blocks are found again in the prefix cache."""


class Backend(Protocol):
    """An engine that is up. Calls may overlap; results do not depend on how they do."""

    @property
    def max_context(self) -> int:
        """Longest prompt plus completion, in tokens."""
        ...

    @property
    def kv(self) -> KvCache | None:
        """The engine's own figures as of its last reply; None where it does not tell."""
        ...

    async def generate(self, request: GenerationRequest) -> Completion:
        """Sample one turn.

        Raises:
            RequestError: this request failed; others go on.
            BackendError: the engine is gone.
        """
        ...

    async def close(self) -> None:
        """Stop the engine and free what it holds. May be called twice."""
        ...
