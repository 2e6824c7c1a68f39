"""Decides which conversations run. Pure: no clock, no IO, no await."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CapScheduler:
    """Keeps at most `max_in_flight` conversations going, in the order of the plan."""

    max_in_flight: int

    def admit(self, waiting: int, in_flight: int) -> int:
        """How many waiting conversations to start now."""
        return max(0, min(waiting, self.max_in_flight - in_flight))
