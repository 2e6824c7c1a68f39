"""Cost estimate of a long run, measured on its first conversations."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from tempfile import TemporaryDirectory

from selfplay.errors import SelfplayError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import Event
from selfplay.generate.participants import open_participants
from selfplay.generate.plan import conversation_specs
from selfplay.generate.play import INTERRUPTED, interruptible, play
from selfplay.generate.run import no_events, prepare, run_to_end
from selfplay.store.records import Totals
from selfplay.store.store import DATABASE, RunStore
from selfplay.store.summary import prices_of


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """A run foreseen. `spread`: relative half-width of a 95 % interval around every figure that grows with turns."""

    conversations: int
    measured: int
    """Conversations of the pilot."""
    turns: float
    sampled_tokens: dict[str, float]
    """By side."""
    prompt_tokens: dict[str, float]
    start_seconds: float
    seconds: float
    """At the pilot's pace; a longer run has more conversations in flight and is rarely slower."""
    disk_bytes: float
    cost: float
    spread: float


def scaled(
    conversations: int,
    turns: Sequence[int],
    totals: Totals,
    start_seconds: float,
    seconds: float,
    disk_bytes: int,
    prices: dict[str, tuple[float, float]],
) -> CostEstimate:
    """Scale what a pilot took, all of whose conversations were played to their end, to a whole run.

    Args:
        turns: of each conversation of the pilot.
        start_seconds: until the first conversation could begin.
        seconds: from then on.
        disk_bytes: of the pilot's file.
        prices: by side, money per million prompt and sampled tokens.

    Raises:
        SelfplayError: no conversation has ended.
    """
    if not turns or not sum(turns):
        raise SelfplayError("nothing to foresee from: no conversation of the pilot has ended")
    scale = conversations / len(turns)
    return CostEstimate(
        conversations=conversations,
        measured=len(turns),
        turns=sum(turns) * scale,
        sampled_tokens={role: usage.sampled_tokens * scale for role, usage in totals.by_role.items()},
        prompt_tokens={role: usage.prompt_tokens * scale for role, usage in totals.by_role.items()},
        start_seconds=start_seconds,
        seconds=seconds * scale,
        disk_bytes=disk_bytes * scale,
        cost=totals.cost(prices) * scale,
        spread=1.96 * pstdev(turns) / mean(turns) / math.sqrt(len(turns)),
    )


PILOT = 32
"""Conversations that an estimate is made from."""


def estimate_run(
    config: GenerateConfig, on_event: Callable[[Event], None] | None = None, keep: Path | None = None
) -> CostEstimate:
    """What a run would take in tokens, time, disk and money, measured on its first conversations.

    Args:
        keep: folder for the run of those; left out, nothing is kept.

    Raises:
        SelfplayError: see `generate`.
    """
    return run_to_end(_estimate(config, on_event or no_events, keep))


async def _estimate(config: GenerateConfig, on_event: Callable[[Event], None], keep: Path | None) -> CostEstimate:
    """Play the first conversations of the plan to their end; in a folder that is thrown away, if none is named."""
    run = prepare(config)
    wanted = run.config.conversations or 0
    pilot = run.config.model_copy(update={"conversations": min(PILOT, wanted)})
    asked = time.monotonic()
    with TemporaryDirectory() as name:
        folder = keep or Path(name) / "pilot"
        store = RunStore.create(folder, {}, conversation_specs(pilot, run.openings))
        with closing(store), interruptible() as interrupt:
            async with open_participants(pilot, run.sides, folder, on_event) as sides, store:
                began = time.monotonic()
                if await play(pilot, store, sides, on_event, interrupt) == INTERRUPTED:
                    raise asyncio.CancelledError
                seconds = time.monotonic() - began
            turns = [len(conversation.turns) for conversation in store.conversations()]
            totals = store.totals()
        size = (folder / DATABASE).stat().st_size
    return scaled(wanted, turns, totals, began - asked, seconds, size, prices_of(run.config.model_dump()))
