"""Limits that end a run early: a number of sampled tokens, a number of hours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from selfplay.generate.events import Event, Sampled


@dataclass(slots=True)
class Limits:
    """Watches events; calls `stop` with the reason. Counts sampled tokens, those of earlier parts included."""

    stop: Callable[[str], None]
    max_tokens: int | None = None
    max_hours: float | None = None
    tokens: int = 0

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if self.max_tokens is not None and isinstance(event, Sampled):
            self.tokens += event.usage.sampled_tokens
            self.check()

    def check(self) -> None:
        """Stop if enough is sampled; a run that is taken up again may have reached it before."""
        if self.max_tokens is not None and self.tokens >= self.max_tokens:
            self.stop(f"{self.max_tokens:,} tokens are sampled")

    def start_clock(self) -> asyncio.TimerHandle | None:
        """Count hours from now, where they are limited; cancel the handle when the run is over."""
        if self.max_hours is None:
            return None
        why = f"{self.max_hours:g} hours are over"
        return asyncio.get_running_loop().call_later(self.max_hours * 3600, self.stop, why)
