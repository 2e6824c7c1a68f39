"""The two sides of a run, ready to speak: models and servers named in the settings become speakers and engine budgets.

A side is a folder, for which engines are started here, or the URL of a server. Two sides that name one folder share its
engines and its tokenizer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from assistant.model import resolve_assistant
from assistant.speaker import AssistantSpeaker
from selfplay.chat.conversation import Role
from selfplay.chat.models import RoleModel, load_tokenizer
from selfplay.chat.speakers import Speaker
from selfplay.errors import ConfigError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import EngineRestarted, Event
from selfplay.generate.scheduler import EngineBudget
from selfplay.serve.backend import Backend
from selfplay.serve.chat_completions import ChatSampler
from selfplay.serve.completions import TextCompletions, TokenCompletions
from selfplay.serve.config import KEY_VARIABLES, Placement
from selfplay.serve.endpoint import Endpoint
from selfplay.serve.engines import MAX_NUM_SEQS, start_engines
from selfplay.serve.placement import PlacedModel, place, this_machine, weight_bytes
from selfplay.serve.turns import Sampler, TurnSampler
from selfplay.serve.vllm_backend import EngineSpec
from simulator.model import resolve_simulator
from simulator.speaker import UserSpeaker

ROLES: tuple[Role, Role] = ("user", "assistant")
SIDES: dict[Role, str] = {"user": "simulator", "assistant": "assistant"}
"""What each role's side is called in settings, engines and files."""


@dataclass(slots=True)
class Participants:
    """Both sides ready to speak. The scheduler takes `budgets` and `engines_by_role`; speakers go by engine."""

    budgets: list[EngineBudget] = field(default_factory=list)
    engines_by_role: dict[Role, list[int]] = field(default_factory=dict)
    speakers: dict[Role, dict[int, Speaker]] = field(default_factory=dict)
    engines: dict[str, Backend] = field(default_factory=dict)
    endpoints: dict[Role, Endpoint] = field(default_factory=dict)

    def add(self, budget: EngineBudget) -> int:
        """Another engine, a server or a person; its number."""
        self.budgets.append(budget)
        return len(self.budgets) - 1


def resolve_sides(config: GenerateConfig, roles: Sequence[Role] = ROLES) -> list[RoleModel]:
    """The models of the given roles, found and checked; a tokenizer that both share is loaded once.

    Raises:
        ModelError: no usable model folder or tokenizer.
        ConfigError: a simulator on a server without a tokenizer here.
    """
    load = cache(load_tokenizer)
    return [
        resolve_simulator(config.simulator, load) if role == "user" else resolve_assistant(config.assistant, load)
        for role in roles
    ]


def engine_specs(config: GenerateConfig, sides: Sequence[RoleModel], logs: Path) -> dict[str, list[EngineSpec]]:
    """The engines to start, by name: `simulator`, `assistant`, or `both` where they share a folder.

    Raises:
        ConfigError: they cannot be placed on this machine.
    """
    folders = {side.role: side.folder for side in sides if side.folder is not None}
    named: dict[str, tuple[Path, Placement]]
    if len(folders) == 2 and len(set(folders.values())) == 1:
        named = {"both": (folders["user"], config.assistant.engine)}
    else:
        placements: dict[Role, Placement] = {"user": config.simulator.engine, "assistant": config.assistant.engine}
        named = {SIDES[role]: (folder, placements[role]) for role, folder in folders.items()}
    models = [PlacedModel(name, folder, placement, weight_bytes(folder)) for name, (folder, placement) in named.items()]
    if not models:
        return {}
    seqs = min(MAX_NUM_SEQS, config.max_in_flight or MAX_NUM_SEQS)
    return place(models, this_machine(), logs, max_num_seqs=seqs, kv_gib=config.kv_cache_gib)


@asynccontextmanager
async def open_participants(
    config: GenerateConfig, sides: Sequence[RoleModel], logs: Path, on_event: Callable[[Event], None]
) -> AsyncIterator[Participants]:
    """The given sides with their engines up and their servers reached; all are closed at the end.

    Raises:
        BackendError: an engine did not start, or a server cannot be reached.
    """
    participants = Participants()

    def on_restart(name: str, deaths: int, cause: str) -> None:
        on_event(EngineRestarted(name, deaths, cause))

    async with AsyncExitStack() as stack:
        for side in sides:
            if side.url is not None:
                await _connect(config, side, participants, stack)
        specs = engine_specs(config, sides, logs)
        engines = await start_engines([spec for group in specs.values() for spec in group], stack, on_restart)
        participants.engines |= engines
        for name, group in specs.items():
            numbers = [participants.add(_budget(engines[spec.name])) for spec in group]
            for side in sides:
                if side.folder is not None and name in ("both", SIDES[side.role]):
                    participants.engines_by_role[side.role] = numbers
                    participants.speakers[side.role] = {
                        number: speaker(config, side.role, turn_sampler(config, side, engines[spec.name]))
                        for number, spec in zip(numbers, group, strict=True)
                    }
        yield participants


def speaker(config: GenerateConfig, role: Role, sampler: Sampler) -> Speaker:
    """A side's speaker over whatever samples its turns."""
    return UserSpeaker(sampler, config.simulator.guardrails) if role == "user" else AssistantSpeaker(sampler)


def turn_sampler(config: GenerateConfig, side: RoleModel, backend: Backend) -> TurnSampler:
    """A side's sampler over an engine that takes token ids."""
    assert side.renderer is not None
    if side.role == "user":
        user = config.simulator
        return TurnSampler(backend, side.renderer, side.role, user.sampling, user.end_logit_bias)
    return TurnSampler(backend, side.renderer, side.role, config.assistant.sampling)


async def _connect(config: GenerateConfig, side: RoleModel, participants: Participants, stack: AsyncExitStack) -> None:
    """Reach a side's server; it gets a budget without a capacity."""
    assert side.url is not None
    user = config.simulator
    if side.role == "user" and user.endpoint.protocol == "text" and user.end_logit_bias:
        raise ConfigError(
            "simulator.end_logit_bias needs token ids: a server that takes text cannot be told of it; leave one of "
            "them out"
        )
    settings = user.endpoint if side.role == "user" else config.assistant.endpoint
    endpoint = await Endpoint.connect(side.url, settings, KEY_VARIABLES[side.role])
    stack.push_async_callback(endpoint.close)
    sampler: Sampler
    if side.renderer is None:
        sampler = ChatSampler(endpoint, config.assistant.sampling)
    elif user.endpoint.protocol == "token_ids":
        sampler = turn_sampler(config, side, TokenCompletions(endpoint))
    else:
        sampler = turn_sampler(config, side, TextCompletions(endpoint, side.renderer))
    number = participants.add(EngineBudget())
    participants.endpoints[side.role] = endpoint
    participants.engines_by_role[side.role] = [number]
    participants.speakers[side.role] = {number: speaker(config, side.role, sampler)}


def _budget(engine: Backend) -> EngineBudget:
    kv = engine.kv
    if kv is None:
        return EngineBudget(max_context=engine.max_context)
    return EngineBudget(kv.capacity, kv.block, engine.max_context)
