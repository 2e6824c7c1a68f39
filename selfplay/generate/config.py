"""Settings of a self-play run. Reading them loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from assistant.config import AssistantConfig
from selfplay.recipe import Operational, Settings
from simulator.config import SimulatorConfig


class GenerateConfig(Settings):
    """A self-play run: two sides, how many conversations, and when to stop."""

    renamed: ClassVar[Mapping[str, str]] = {
        "simulator": "simulator.model",
        "prompted_user": "simulator.prompted",
        "user_sampling": "simulator.sampling",
        "end_bias": "simulator.end_logit_bias",
        "guardrails": "simulator.guardrails",
        "openings": "simulator.openings",
        "per_opening": "simulator.conversations_per_opening",
        "simulator_endpoint": "simulator.endpoint",
        "simulator_engine": "simulator.engine",
        "assistant": "assistant.model",
        "system": "assistant.system",
        "assistant_sampling": "assistant.sampling",
        "assistant_endpoint": "assistant.endpoint",
        "assistant_engine": "assistant.engine",
    }

    description: Operational[str] = ""
    """One line for `selfplay recipes`."""
    simulator: SimulatorConfig = SimulatorConfig()
    """The user's side."""
    assistant: AssistantConfig = AssistantConfig()
    """The answering side."""
    conversations: int | None = Field(None, ge=1)
    """How many; left out, 32, or openings × conversations_per_opening."""
    seed: int = 0
    """The same seed gives the same conversations where engines compute in float32 (the CPU default)."""
    max_rounds: int = Field(20, ge=1)
    """Longest conversation; a round is a user turn and its answer."""
    out: Operational[str | None] = None
    """Run folder; left out, runs/ and the time of day."""
    max_in_flight: Operational[int | None] = Field(None, ge=1)
    """Most conversations at once; left out, as many as the engines' KV caches hold."""
    max_tokens_total: Operational[int | None] = Field(None, ge=1)
    """The run stops, resumable, once this many tokens are sampled."""
    max_hours: Operational[float | None] = Field(None, gt=0)
    """The run stops, resumable, after this time."""
    kv_cache_gib: Operational[int] = Field(1, ge=1)
    """KV cache of each engine in GiB (CPU only)."""
