"""Engines of this machine: started together, supervised, and closed with the stack they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from selfplay.serve.backend import Backend
from selfplay.serve.supervised import SupervisedBackend
from selfplay.serve.vllm_backend import EngineSpec, VllmBackend, on_cpu

MAX_NUM_SEQS = 256
"""Requests an engine runs at once, where `max_in_flight` does not say less."""


async def start_engines(
    specs: Sequence[EngineSpec],
    stack: AsyncExitStack,
    on_restart: Callable[[str, int, str], None] = lambda name, deaths, cause: None,
) -> dict[str, Backend]:
    """Start the engines; each is closed with `stack`, also if another one fails or the start is broken off.

    On a CPU all start at once. On a GPU each measures free memory while it starts, so they go one after the other.

    Args:
        on_restart: called with an engine's name, its deaths so far and the last one's cause once it is up again.

    Raises:
        BackendError: one of them did not start.
    """
    turns = asyncio.Semaphore(max(1, len(specs)) if on_cpu() else 1)

    async def start(spec: EngineSpec) -> Backend:
        async with turns:
            engine = await VllmBackend.start(spec)
        supervised = SupervisedBackend(engine, partial(VllmBackend.start, spec), partial(on_restart, spec.name))
        stack.push_async_callback(supervised.close)
        return supervised

    started = await asyncio.gather(*map(start, specs), return_exceptions=True)
    errors = [outcome for outcome in started if isinstance(outcome, BaseException)]
    engines = [outcome for outcome in started if not isinstance(outcome, BaseException)]
    if errors:
        raise errors[0]
    return {spec.name: engine for spec, engine in zip(specs, engines, strict=True)}
