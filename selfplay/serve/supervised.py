"""An engine that is started again when its process dies. The turn it was asked for is asked for again.

Nothing is lost by that: a request says everything (ids, seed), and a turn counts only once it is committed. The prefix
cache is empty after a restart; the first turn of each conversation fills its part again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from selfplay.errors import BackendError, RequestError
from selfplay.serve.backend import Backend, Completion, GenerationRequest, KvCache

DEATHS = 3
"""The engine that dies this often is not started again."""


class SupervisedBackend:
    """A Backend whose engine may die twice."""

    def __init__(
        self, engine: Backend, start: Callable[[], Awaitable[Backend]], on_restart: Callable[[int, str], None]
    ) -> None:
        """Watch over a running engine.

        Args:
            start: brings up another one like it.
            on_restart: told the number of deaths and the last one's cause once another one is up.
        """
        self._engine = engine
        self._start = start
        self._on_restart = on_restart
        self._deaths = 0
        self._closed = False
        self._replacing = asyncio.Lock()

    @property
    def max_context(self) -> int:
        """Longest prompt plus completion, in tokens."""
        return self._engine.max_context

    @property
    def kv(self) -> KvCache | None:
        """The engine's own figures as of its last reply."""
        return self._engine.kv

    async def generate(self, request: GenerationRequest) -> Completion:
        """Sample one turn, on a new engine if the old one dies over it.

        Raises:
            RequestError: this request failed; others go on.
            BackendError: the engine has died three times.
        """
        while True:
            engine = self._engine
            try:
                return await engine.generate(request)
            except RequestError:
                raise
            except BackendError as error:
                await self._replace(engine, error)

    async def close(self) -> None:
        """Stop the engine; one that is being started is stopped as soon as it is up."""
        self._closed = True
        await self._engine.close()

    async def _replace(self, dead: Backend, error: BackendError) -> None:
        """Start another engine; whoever comes second waits for the first."""
        async with self._replacing:
            while self._engine is dead:
                if self._closed or self._deaths >= DEATHS:
                    raise error
                self._deaths += 1
                if self._deaths == DEATHS:
                    raise BackendError(f"the engine died {DEATHS} times, the last time: {error}") from error
                await dead.close()
                try:
                    self._engine = await self._start()
                except BackendError as again:
                    error = again
                    continue
                self._on_restart(self._deaths, str(error))
        if self._closed:
            await self._engine.close()
