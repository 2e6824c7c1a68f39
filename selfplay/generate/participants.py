"""Models and servers named in a config become speakers: one per side and engine, with the lanes the scheduler knows.

A side is a folder, for which engines are started here, or the URL of a server. Two sides that name one folder share its
engines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from assistant.speaker import AssistantSpeaker
from selfplay.chat.conversation import Role
from selfplay.chat.models import ModelKind, load_renderer, locate_model
from selfplay.chat.rendering import ChatRenderer
from selfplay.chat.speakers import Speaker
from selfplay.errors import ConfigError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import EngineRestarted, Event
from selfplay.generate.scheduler import Lane
from selfplay.serve.backend import Backend
from selfplay.serve.chat_completions import ChatSampler
from selfplay.serve.completions import TextCompletions, TokenCompletions
from selfplay.serve.config import KEY_VARIABLES, is_url
from selfplay.serve.endpoint import Endpoint
from selfplay.serve.engines import MAX_NUM_SEQS, start_engines
from selfplay.serve.placement import PlacedModel, place, this_machine, weight_bytes
from selfplay.serve.turns import Sampler, TurnSampler
from selfplay.serve.vllm_backend import EngineSpec
from simulator.model import load_user_renderer
from simulator.speaker import UserSpeaker


@dataclass(frozen=True, slots=True)
class Side:
    """One side, checked before anything is started: a folder or a URL, and its renderer where prompts are made here."""

    role: Role
    folder: Path | None
    url: str | None
    renderer: ChatRenderer | None


@dataclass(slots=True)
class Cast:
    """Both sides ready to speak. Lanes and places are what the scheduler takes; speakers go by lane."""

    lanes: list[Lane] = field(default_factory=list)
    places: dict[Role, list[int]] = field(default_factory=dict)
    speakers: dict[Role, dict[int, Speaker]] = field(default_factory=dict)
    engines: dict[str, Backend] = field(default_factory=dict)
    endpoints: dict[Role, Endpoint] = field(default_factory=dict)


def side_of(config: GenerateConfig, role: Role) -> Side:
    """What a side is made of.

    Raises:
        ModelError: no usable model folder or tokenizer.
        ConfigError: a simulator on a server without a tokenizer here.
    """
    name = config.simulator if role == "user" else config.assistant
    if not is_url(name):
        folder = locate_model(name, "assistant" if config.prompted_user else _kind(role))
        if role == "assistant":
            return Side(role, folder, None, load_renderer(folder, role))
        return Side(role, folder, None, load_user_renderer(folder, prompted=config.prompted_user))
    if role == "assistant":
        return Side(role, None, name, None)
    if config.simulator_endpoint.tokenizer is None:
        raise ConfigError(
            f"the simulator is {name}: its prompts are rendered here; name the folder of its tokenizer and template "
            "with --simulator-tokenizer"
        )
    tokenizer = locate_model(config.simulator_endpoint.tokenizer, "simulator")
    return Side(role, None, name, load_user_renderer(tokenizer, prompted=config.prompted_user))


def engine_specs(config: GenerateConfig, sides: Sequence[Side], logs: Path) -> dict[str, list[EngineSpec]]:
    """The engines to start, by name: `simulator`, `assistant`, or `both` where they share a folder.

    Raises:
        ConfigError: they cannot be placed on this machine.
    """
    folders = {side.role: side.folder for side in sides if side.folder is not None}
    if len(folders) == 2 and len(set(folders.values())) == 1:
        named = {"both": (folders["user"], config.assistant_engine)}
    else:
        placements = {
            "user": ("simulator", config.simulator_engine),
            "assistant": ("assistant", config.assistant_engine),
        }
        named = {placements[role][0]: (folder, placements[role][1]) for role, folder in folders.items()}
    models = [PlacedModel(name, folder, placement, weight_bytes(folder)) for name, (folder, placement) in named.items()]
    if not models:
        return {}
    seqs = min(MAX_NUM_SEQS, config.max_in_flight or MAX_NUM_SEQS)
    return place(models, this_machine(), logs, max_num_seqs=seqs, kv_gib=config.kv_cache_gib)


@asynccontextmanager
async def cast_of(
    config: GenerateConfig, sides: Sequence[Side], logs: Path, on_event: Callable[[Event], None]
) -> AsyncIterator[Cast]:
    """The given sides with their engines up and their servers reached; all are closed at the end.

    Raises:
        BackendError: an engine did not start, or a server cannot be reached.
    """
    cast = Cast()

    def on_restart(name: str, deaths: int, cause: str) -> None:
        on_event(EngineRestarted(name, deaths, cause))

    async with AsyncExitStack() as stack:
        for side in sides:
            if side.url is not None:
                await _connect(config, side, cast, stack)
        specs = engine_specs(config, sides, logs)
        engines = await start_engines([spec for group in specs.values() for spec in group], stack, on_restart)
        cast.engines |= engines
        for name, group in specs.items():
            lanes = [_add_lane(cast, _lane(engines[spec.name])) for spec in group]
            for side in sides:
                if side.folder is not None and name in ("both", _kind(side.role)):
                    assert side.renderer is not None
                    cast.places[side.role] = lanes
                    cast.speakers[side.role] = {
                        lane: speaker_of(config, side.role, turns_of(config, side, engines[spec.name]))
                        for lane, spec in zip(lanes, group, strict=True)
                    }
        yield cast


def speaker_of(config: GenerateConfig, role: Role, sampler: Sampler) -> Speaker:
    """A side's speaker over whatever draws its turns."""
    return UserSpeaker(sampler, config.guardrails) if role == "user" else AssistantSpeaker(sampler)


def turns_of(config: GenerateConfig, side: Side, backend: Backend) -> TurnSampler:
    """A side's sampler over an engine that takes token ids."""
    assert side.renderer is not None
    if side.role == "user":
        return TurnSampler(backend, side.renderer, side.role, config.user_sampling, config.end_bias)
    return TurnSampler(backend, side.renderer, side.role, config.assistant_sampling)


async def _connect(config: GenerateConfig, side: Side, cast: Cast, stack: AsyncExitStack) -> None:
    """Reach a side's server; it gets a lane without a budget."""
    assert side.url is not None
    if side.role == "user" and config.simulator_endpoint.protocol == "text" and config.end_bias:
        raise ConfigError(
            "end_bias needs token ids: a server that takes text cannot be told of it; leave one of them out"
        )
    settings = config.simulator_endpoint if side.role == "user" else config.assistant_endpoint
    endpoint = await Endpoint.connect(side.url, settings, KEY_VARIABLES[side.role])
    stack.push_async_callback(endpoint.close)
    sampler: Sampler
    if side.renderer is None:
        sampler = ChatSampler(endpoint, config.assistant_sampling)
    elif config.simulator_endpoint.protocol == "token_ids":
        sampler = turns_of(config, side, TokenCompletions(endpoint))
    else:
        sampler = turns_of(config, side, TextCompletions(endpoint, side.renderer))
    lane = _add_lane(cast, Lane())
    cast.endpoints[side.role] = endpoint
    cast.places[side.role] = [lane]
    cast.speakers[side.role] = {lane: speaker_of(config, side.role, sampler)}


def _lane(engine: Backend) -> Lane:
    kv = engine.kv
    return Lane(longest=engine.max_context) if kv is None else Lane(kv.capacity, kv.block, engine.max_context)


def _add_lane(cast: Cast, lane: Lane) -> int:
    cast.lanes.append(lane)
    return len(cast.lanes) - 1


def _kind(role: Role) -> ModelKind:
    return "simulator" if role == "user" else "assistant"
