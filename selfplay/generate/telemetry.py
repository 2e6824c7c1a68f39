"""A run in figures while it goes on: counted from events, written as JSON lines, offered to Prometheus."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selfplay.chat.speakers import Usage
from selfplay.errors import ConfigError
from selfplay.generate.events import (
    Admitted,
    Asked,
    ConversationEnded,
    EngineRestarted,
    Event,
    RunOpened,
    Sampled,
    Snapshot,
)

FILE = "metrics.jsonl"
WRITTEN_EVERY = 5.0
"""Seconds between two lines of the file."""
_SHOWN_EVERY = 0.25


@dataclass(slots=True)
class RunMetrics:
    """Counts events. `kv_free` and `faults` are asked for when a snapshot is taken."""

    kv_free: Callable[[], dict[str, float]] = dict
    faults: Callable[[], dict[str, int]] = dict
    usage: Usage = field(default_factory=Usage)
    _planned: int = 0
    _finished: int = 0
    _in_flight: int = 0
    _asked: Counter[str] = field(default_factory=Counter)
    _turns: int = 0
    _reasons: Counter[str] = field(default_factory=Counter)
    _resampled: Counter[str] = field(default_factory=Counter)
    _restarts: int = 0
    _started: float | None = None

    def __call__(self, event: Event) -> None:
        """Take one event. The frequent kinds are asked for first: this runs several times a turn."""
        if isinstance(event, Asked):
            self._asked[event.role] += 1
        elif isinstance(event, Sampled):
            self._asked[event.role] -= 1
            self._turns += event.turn_taken
            self.usage += event.usage
            if event.rejected:
                self._resampled += event.rejected
        elif isinstance(event, Admitted):
            self._in_flight = event.in_flight
            self._started = self._started or time.monotonic()
        elif isinstance(event, ConversationEnded):
            self._in_flight = event.in_flight
            self._finished += 1
            self._reasons[event.reason] += 1
        elif isinstance(event, RunOpened):
            self._planned, self._finished = event.conversations, event.finished
        elif isinstance(event, EngineRestarted):
            self._restarts += 1

    def snapshot(self) -> Snapshot:
        """The figures now."""
        seconds = max(time.monotonic() - self._started, 1e-6) if self._started is not None else 0.0
        return Snapshot(
            seconds=round(seconds, 2),
            planned=self._planned,
            finished=self._finished,
            in_flight=self._in_flight,
            asked={"user": self._asked["user"], "assistant": self._asked["assistant"]},
            turns=self._turns,
            turns_per_s=round(self._turns / seconds, 2) if seconds else 0.0,
            tokens=self.usage.sampled_tokens,
            tokens_per_s=round(self.usage.sampled_tokens / seconds, 1) if seconds else 0.0,
            cache_hit=round(self.usage.cache_hit, 4),
            kv_free={name: round(share, 4) for name, share in self.kv_free().items()},
            reasons=dict(self._reasons),
            resampled=dict(self._resampled),
            restarts=self._restarts,
            faults=self.faults(),
        )


async def report(metrics: RunMetrics, folder: Path, on_event: Callable[[Event], None]) -> None:
    """Show snapshots and append some of them to the file beside the run, until cancelled; the last one always."""
    try:
        written = time.monotonic()
        while True:
            await asyncio.sleep(_SHOWN_EVERY)
            on_event(metrics.snapshot())
            if time.monotonic() - written >= WRITTEN_EVERY:
                written = time.monotonic()
                _append(metrics, folder)
    finally:
        on_event(metrics.snapshot())
        _append(metrics, folder)


def _append(metrics: RunMetrics, folder: Path) -> None:
    """Figures are worth less than the run: where the disk is full they are left out."""
    line = json.dumps({"time": round(time.time(), 3), **asdict(metrics.snapshot())})
    with suppress(OSError), (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextmanager
def prometheus(metrics: RunMetrics, port: int | None) -> Iterator[None]:
    """Offer the figures on http://127.0.0.1:`port`/metrics; nothing when no port is given.

    Raises:
        ConfigError: the port cannot be used.
    """
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Collector(metrics))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"metrics port {port}: {error.strerror}; choose another --metrics-port") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Figures at the moment Prometheus asks."""

    def __init__(self, metrics: RunMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._metrics.snapshot()
        yield GaugeMetricFamily("selfplay_conversations_planned", "Conversations of the run.", value=now.planned)
        yield GaugeMetricFamily("selfplay_conversations_in_flight", "Conversations going on.", value=now.in_flight)
        yield CounterMetricFamily("selfplay_turns", "Turns committed.", value=now.turns)
        yield CounterMetricFamily(
            "selfplay_prompt_tokens", "Tokens of prompts.", value=self._metrics.usage.prompt_tokens
        )
        yield CounterMetricFamily(
            "selfplay_cached_tokens", "Prompt tokens found in a prefix cache.", value=self._metrics.usage.cached_tokens
        )
        yield CounterMetricFamily("selfplay_sampled_tokens", "Tokens sampled.", value=now.tokens)
        yield CounterMetricFamily("selfplay_engine_restarts", "Engines started again.", value=now.restarts)
        yield _labelled(GaugeMetricFamily("selfplay_asked", "Turns being sampled.", labels=["side"]), now.asked)
        yield _labelled(GaugeMetricFamily("selfplay_kv_free_ratio", "KV memory free.", labels=["engine"]), now.kv_free)
        ended = CounterMetricFamily("selfplay_conversations_ended", "Conversations ended.", labels=["reason"])
        yield _labelled(ended, now.reasons)
        resampled = CounterMetricFamily("selfplay_resampled", "Turns drawn again.", labels=["reason"])
        yield _labelled(resampled, now.resampled)
        faults = CounterMetricFamily("selfplay_endpoint_faults", "Tries without a reply.", labels=["cause"])
        yield _labelled(faults, now.faults)


def _labelled(family: Any, values: dict[str, Any]) -> Any:
    for label, value in values.items():
        family.add_metric([label], value)
    return family
