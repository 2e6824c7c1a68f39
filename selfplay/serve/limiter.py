"""Adaptive limit of concurrent requests: a server gets as many as it takes without complaint.

Additive increase, multiplicative decrease, with slow start, as TCP controls congestion (Jacobson 1988): the limit
doubles per round trip until the first refusal, halves at a refusal, then grows by one per round trip. One refusal in a
round trip counts, since requests sent together are refused together.
"""

from __future__ import annotations

import asyncio
from collections import deque


class AdaptiveLimit:
    """A semaphore whose size follows what the server bears."""

    def __init__(self, highest: int, start: int = 32) -> None:
        self._limit = float(min(start, highest))
        self._highest = highest
        self._threshold = float(highest)
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sent = 0
        self._last_cut = 0

    @property
    def limit(self) -> int:
        """Requests that may be out at once now."""
        return int(self._limit)

    @property
    def in_use(self) -> int:
        """Requests that are out."""
        return self._in_use

    async def acquire(self) -> int:
        """Wait for a place; returns a ticket that says when it was given."""
        if self._in_use >= self.limit or self._waiting:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():  # given and not used
                    self._in_use -= 1
                    self._wake()
                raise
        else:
            self._in_use += 1
        self._sent += 1
        return self._sent

    def release(self, ticket: int, refused: bool) -> None:
        """Give a place back and say how it went. `refused`: the server was too busy."""
        if refused:
            if ticket > self._last_cut:  # sent after the last cut: this one is news
                self._limit = self._threshold = max(1.0, self._limit / 2)
                self._last_cut = self._sent
        elif self._in_use >= self.limit:  # only a limit that was reached has been tried
            step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
            self._limit = min(self._highest, self._limit + step)
        self._in_use -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._in_use < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._in_use += 1
                place.set_result(None)
