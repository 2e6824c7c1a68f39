"""Self-play without models, for measuring everything but the engine. Used by the other benchmarks here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfplay.chat.conversation import Role
from selfplay.chat.models import ModelKind, load_renderer, locate_model
from selfplay.chat.speakers import Speaker
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import Event
from selfplay.generate.participants import speaker
from selfplay.generate.plan import conversation_specs
from selfplay.generate.play import freeze_gc
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import EngineBudget, Scheduler
from selfplay.generate.telemetry import RunMetrics
from selfplay.serve.scripted import ScriptedBackend, pick_from
from selfplay.serve.turns import TurnSampler
from selfplay.store.store import RunStore
from simulator.config import SimulatorConfig
from simulator.guardrails import Guardrails

WORDS = (
    "I am looking for a restaurant in the city centre.",
    "Which day do you have in mind?",
    "Tomorrow at noon, for two people, please.",
    "I have found three of them, shall I book one?",
    "Yes, that sounds good to me.",
)
ROLES: tuple[tuple[Role, ModelKind], ...] = (("user", "simulator"), ("assistant", "assistant"))


def scripted_backends(latency: float) -> dict[Role, ScriptedBackend]:
    """A backend for each side that answers with one of a few sentences and never ends a conversation."""
    backends: dict[Role, ScriptedBackend] = {}
    for role, kind in ROLES:
        renderer = load_renderer(locate_model("nano", kind), role)
        backends[role] = ScriptedBackend(pick_from([renderer.encode_text(text) for text in WORDS]), latency=latency)
    return backends


def scripted_config(conversations: int, rounds: int) -> GenerateConfig:
    """A run of the embedded pair's shape; guardrails are checked but never met by these sentences."""
    user = SimulatorConfig(guardrails=Guardrails(repeat=False))
    return GenerateConfig(conversations=conversations, max_rounds=rounds, simulator=user)


def scripted_speakers(config: GenerateConfig, backends: dict[Role, ScriptedBackend]) -> dict[Role, dict[int, Speaker]]:
    """Both sides as the embedded pair's templates render them."""
    speakers: dict[Role, dict[int, Speaker]] = {}
    for engine, (role, kind) in enumerate(ROLES):
        renderer = load_renderer(locate_model("nano", kind), role)
        speakers[role] = {
            engine: speaker(config, role, TurnSampler(backends[role], renderer, role, config.simulator.sampling))
        }
    return speakers


async def play_scripted(
    config: GenerateConfig,
    speakers: dict[Role, dict[int, Speaker]],
    in_flight: int,
    folder: Path,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """A whole run with rendering, guardrails and store; the run stays in `folder`."""
    scheduler = Scheduler([EngineBudget(), EngineBudget()], {"user": [0], "assistant": [1]}, in_flight)
    store = RunStore.create(folder, {}, conversation_specs(config))
    async with store:
        with freeze_gc():
            await Runner(speakers, store, scheduler, config.max_rounds, on_event or RunMetrics()).run(
                store.unfinished()
            )
    store.close()
