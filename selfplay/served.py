"""One model by itself: a folder in an engine started here, or a server reached. Answers, and judges."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfplay.chat.models import EMBEDDED, content_hash, load_renderer, locate_model
from selfplay.chat.rendering import ChatRenderer
from selfplay.serve.backend import Backend, Sampling
from selfplay.serve.chat_completions import ChatSampler
from selfplay.serve.endpoint import Endpoint, EndpointSettings
from selfplay.serve.placement import PlacedModel, Placement, place, this_machine, weight_bytes
from selfplay.serve.turns import Sampler, TurnSampler
from selfplay.sides import MAX_NUM_SEQS, is_url, start_engines

OPENAI, OPENAI_URL, OPENAI_KEY = "https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY"
"""Where a model that is named alone is looked for, as OpenAI's own client does."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A model in an engine of ours."""

    name: str
    backend: Backend
    renderer: ChatRenderer

    def sampler(self, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> Sampler:
        """Draws assistant turns; short ones where the context has no room for more."""
        told = None if schema is None else json.dumps(schema)
        return TurnSampler(self.backend, self.renderer, "assistant", sampling, shorten=True, schema=told)


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A model on a server."""

    name: str
    endpoint: Endpoint

    def sampler(self, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> Sampler:
        """Asks for assistant turns."""
        return ChatSampler(self.endpoint, sampling, schema)


def is_here(where: str) -> bool:
    """Whether a name is a model folder on this machine."""
    return where == EMBEDDED or (Path(where).expanduser() / "config.json").exists()


def identity(where: str, settings: EndpointSettings) -> str:
    """What stays the same while the model does: the content of a folder, the name on a server."""
    if is_here(where):
        return content_hash(locate_model(where, "assistant"))
    return settings.model or ("the one served" if is_url(where) else where)


@asynccontextmanager
async def served(
    where: str,
    name: str | None,
    settings: EndpointSettings,
    key_variable: str,
    logs: Path,
    kv_gib: int = 1,
    structured: bool = False,
) -> AsyncIterator[EngineModel | ServerModel]:
    """A model that is up.

    Args:
        where: model folder, URL, or the name of a model at $OPENAI_BASE_URL.
        name: what to call it; left out, as its server calls it.
        structured: it is to follow JSON schemas.

    Raises:
        ModelError, ConfigError, BackendError: no such model, or it does not come up.
    """
    async with AsyncExitStack() as stack:
        if not is_here(where) and (is_url(where) or "/" not in where):
            endpoint = await _reached(where, settings, key_variable)
            stack.push_async_callback(endpoint.close)
            yield ServerModel(plain(name or endpoint.model), endpoint)
            return
        folder = locate_model(where, "assistant")
        renderer = load_renderer(folder, "assistant")
        model = PlacedModel("judge" if structured else "model", folder, Placement(), weight_bytes(folder))
        placed = place([model], this_machine(), logs, max_num_seqs=MAX_NUM_SEQS, kv_gib=kv_gib)
        spec = replace(placed[model.name][0], structured=structured)
        engines = await start_engines([spec], stack, lambda event: None)
        yield EngineModel(plain(name or where), engines[spec.name], renderer)


def plain(name: str) -> str:
    """A model's name as one of a file: the last part of a path."""
    return Path(name).name


async def _reached(where: str, settings: EndpointSettings, key_variable: str) -> Endpoint:
    if is_url(where):
        return await Endpoint.connect(where, settings, key_variable)
    named = settings.model_copy(update={"model": where})
    return await Endpoint.connect(os.environ.get(OPENAI_URL, OPENAI), named, OPENAI_KEY)
