"""Playing an open run: runner, watchers, limits and interrupts put together around a cast and a store."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import Event, RunOpened, Stopping
from selfplay.generate.limits import Limits
from selfplay.generate.participants import Participants
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import Scheduler
from selfplay.generate.telemetry import RunMetrics, prometheus, report
from selfplay.store.store import RunStore

INTERRUPTED = "interrupted"
MOST_IN_FLIGHT = 1024
"""Conversations at once where neither a KV cache nor `max_in_flight` bounds them (both sides are servers)."""

Watcher = Callable[[Event], None]


@dataclass(slots=True)
class Interrupt:
    """What Ctrl-C does: at first the polite thing, if there is one yet; then the current task is cancelled."""

    task: asyncio.Task[object]
    polite: list[Callable[[], None]] = field(default_factory=list)

    def __call__(self) -> None:
        """Take one signal."""
        if self.polite:
            self.polite.pop()()
        else:
            self.task.cancel()


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """SIGINT and SIGTERM go to an `Interrupt` meanwhile. Outside the main thread signals are left alone."""
    task = asyncio.current_task()
    assert task is not None
    interrupt, loop = Interrupt(task), asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
            taken.append(number)
    except (ValueError, RuntimeError):  # asyncio's word for: not the main thread
        pass
    try:
        yield interrupt
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


@contextmanager
def freeze_gc() -> Iterator[None]:
    """Keep the garbage collector from walking through all that is loaded already, time and again, during a run.

    Conversations are made of acyclic objects, freed without it; with transformers loaded it took a third of the time.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def play(
    config: GenerateConfig,
    store: RunStore,
    participants: Participants,
    on_event: Watcher,
    interrupt: Interrupt,
    *,
    metrics_port: int | None = None,
) -> str | None:
    """Play what the run owes; why it stopped early, or None.

    Raises:
        BackendError, StoreError: an engine, a server or the disk gave up; what is committed stays.
    """
    stopped: list[str] = []

    def stop(why: str) -> None:
        if not stopped:
            stopped.append(why)
            interrupt.polite.clear()
            runner.stop()
            tell(Stopping(why))

    limits = Limits(stop, config.max_tokens_total, config.max_hours, store.totals().usage.sampled_tokens)
    metrics = RunMetrics(partial(_kv_free, participants), partial(_faults, participants))
    watchers: list[Watcher] = [metrics, limits, on_event]

    def tell(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    tell(RunOpened(*store.counts()))
    unbounded = sys.maxsize if any(budget.capacity is not None for budget in participants.budgets) else MOST_IN_FLIGHT
    scheduler = Scheduler(participants.budgets, participants.engines_by_role, config.max_in_flight or unbounded)
    runner = Runner(participants.speakers, store, scheduler, config.max_rounds, tell)
    interrupt.polite.append(partial(stop, INTERRUPTED))
    limits.check()
    clock = limits.start_clock()
    reporting = asyncio.create_task(report(metrics, store.folder, on_event))
    try:
        with prometheus(metrics, metrics_port), freeze_gc():
            complete = await runner.run(store.unfinished())
    finally:
        interrupt.polite.clear()
        if clock is not None:
            clock.cancel()
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
    return None if complete else stopped[0]


def _kv_free(participants: Participants) -> dict[str, float]:
    states = {name: engine.kv for name, engine in participants.engines.items()}
    return {name: kv.free / kv.capacity for name, kv in states.items() if kv is not None}


def _faults(participants: Participants) -> dict[str, int]:
    return dict(sum((endpoint.faults for endpoint in participants.endpoints.values()), Counter()))
