"""A backend without a model: scripted, deterministic, with latency and faults to order. For tests and dry runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from selfplay.errors import RequestError
from selfplay.seeds import derive_seed, unit_interval
from selfplay.serve.backend import Completion, GenerationRequest, KvCache

Script = Callable[[GenerationRequest], Completion]


class ScriptedBackend:
    """Answers each request through `script`, a pure function of the request."""

    def __init__(
        self, script: Script, *, max_context: int = 4096, latency: float = 0.0, fault_share: float = 0.0
    ) -> None:
        """Make a backend.

        Args:
            script: request → completion; must not depend on order, so that runs can be compared.
            latency: seconds each request takes, jittered by half of it either way.
            fault_share: share of requests in [0, 1] that fail, chosen by their seed.
        """
        self._script = script
        self._max_context = max_context
        self._latency = latency
        self._fault_share = fault_share

    @property
    def max_context(self) -> int:
        """Longest prompt plus completion, in tokens."""
        return self._max_context

    @property
    def kv(self) -> KvCache | None:
        """Nothing is kept."""
        return None

    async def generate(self, request: GenerationRequest) -> Completion:
        """Wait, then fail or answer by script."""
        await asyncio.sleep(self._latency * (0.5 + unit_interval("latency", request.seed)))
        if unit_interval("fault", request.seed) < self._fault_share:
            raise RequestError("scripted fault", cause="scripted")
        return self._script(request)

    async def close(self) -> None:
        """Nothing to stop."""


def pick_from(texts: Sequence[Sequence[int]], end_id: int | None = None, end_share: float = 0.0) -> Script:
    """A script that answers with one of some token rows, or with `end_id` alone, chosen by the request's seed."""

    def script(request: GenerationRequest) -> Completion:
        prompt_tokens = len(request.prompt_ids)
        if end_id is not None and unit_interval("end", request.seed) < end_share:
            return Completion((), "stop", end_id, prompt_tokens)
        row = texts[derive_seed("row", request.seed) % len(texts)]
        return Completion(tuple(row), "stop", request.stop_ids[0], prompt_tokens)

    return script
