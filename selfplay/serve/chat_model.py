"""One model by itself: a folder in an engine started here, or a server reached. Answers, and judges."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from selfplay.chat.models import EMBEDDED, content_hash, load_renderer, locate_model
from selfplay.chat.rendering import ChatRenderer
from selfplay.serve.backend import Backend
from selfplay.serve.chat_completions import ChatSampler
from selfplay.serve.config import EndpointSettings, Placement, Sampling, is_url
from selfplay.serve.endpoint import Endpoint
from selfplay.serve.engines import MAX_NUM_SEQS, start_engines
from selfplay.serve.placement import PlacedModel, place, this_machine, weight_bytes
from selfplay.serve.turns import Sampler, TurnSampler

LONGEST_TEXT = 600
"""Characters of a text in structured output of an engine here."""
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
        told = None if schema is None else json.dumps(_bounded(schema))
        return TurnSampler(self.backend, self.renderer, "assistant", sampling, shorten=True, schema=told)


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A model on a server."""

    name: str
    endpoint: Endpoint

    def sampler(self, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> Sampler:
        """Asks for assistant turns."""
        return ChatSampler(self.endpoint, sampling, schema)


def _bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose free texts end: small models would not, and servers may not know the keyword."""
    properties = {
        name: {**kind, "maxLength": LONGEST_TEXT} if kind == {"type": "string"} else kind
        for name, kind in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def is_here(where: str) -> bool:
    """Whether a name is a model folder on this machine."""
    return where == EMBEDDED or (Path(where).expanduser() / "config.json").exists()


def folder_identity(where: str) -> str:
    """What stays the same while a model folder does: its content."""
    return content_hash(locate_model(where, "assistant"))


async def model_name(where: str, settings: EndpointSettings, key_variable: str) -> str:
    """What `open_model` will call a model; a server is asked.

    Raises:
        ModelError, ConfigError, BackendError: no such model, or no way to it.
    """
    if not _elsewhere(where):
        return model_filename(str(locate_model(where, "assistant")) if where != EMBEDDED else where)
    endpoint = await _reached(where, settings, key_variable)
    await endpoint.close()
    return model_filename(endpoint.model)


@asynccontextmanager
async def open_model(
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
        if _elsewhere(where):
            endpoint = await _reached(where, settings, key_variable)
            stack.push_async_callback(endpoint.close)
            yield ServerModel(model_filename(name or endpoint.model), endpoint)
            return
        folder = locate_model(where, "assistant")
        renderer = load_renderer(folder, "assistant")
        model = PlacedModel("judge" if structured else "model", folder, Placement(), weight_bytes(folder))
        placed = place([model], this_machine(), logs, max_num_seqs=MAX_NUM_SEQS, kv_gib=kv_gib)
        spec = replace(placed[model.name][0], structured=structured)
        engines = await start_engines([spec], stack)
        yield EngineModel(model_filename(name or where), engines[spec.name], renderer)


def _elsewhere(where: str) -> bool:
    """Whether a model is on a server: by URL, or by a name that is no path."""
    return is_url(where) or (not is_here(where) and "/" not in where and not Path(where).is_dir())


def model_filename(name: str) -> str:
    """A model's name as one of a file: the last part of a path."""
    return Path(name).name


async def _reached(where: str, settings: EndpointSettings, key_variable: str) -> Endpoint:
    if is_url(where):
        return await Endpoint.connect(where, settings, key_variable)
    named = settings.model_copy(update={"model": where})
    return await Endpoint.connect(os.environ.get(OPENAI_URL, OPENAI), named, OPENAI_KEY)


class ChatModel(Protocol):
    """An engine here or a server somewhere."""

    @property
    def name(self) -> str:
        """What files call it."""
        ...

    def sampler(self, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> Sampler:
        """Draws its turns; with a JSON schema they follow it."""
        ...
