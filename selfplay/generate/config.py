"""What a recipe of self-play may say. Reading one loads no model code."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from selfplay.serve.config import EndpointSettings, Placement, Sampling
from simulator.config import SimulatorEndpoint
from simulator.guardrails import Guardrails


class GenerateConfig(BaseModel):
    """A self-play run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    description: str = ""
    """One line for `selfplay recipes`."""
    simulator: str = "nano"
    """Folder of the user simulator, or the URL of a server of it; nano: the embedded one."""
    assistant: str = "nano"
    """Folder of the assistant, or the URL of a chat server; nano: the embedded one."""
    prompted_user: bool = False
    """The simulator is an assistant model that is told to play the user: the baseline of a trained one."""
    simulator_endpoint: SimulatorEndpoint = SimulatorEndpoint()
    """How the simulator's server is used."""
    assistant_endpoint: EndpointSettings = EndpointSettings()
    """How the assistant's server is used."""
    simulator_engine: Placement = Placement()
    """Where the simulator's engines run."""
    assistant_engine: Placement = Placement()
    """Where the assistant's engines run; both sides' when they name the same folder."""
    conversations: int | None = Field(None, ge=1)
    """How many; default 32, or openings × per_opening."""
    seed: int = 0
    """The same seed gives the same conversations where engines compute in float32 (the CPU default)."""
    out: str | None = None
    """Run folder; default runs/ and the time of day."""
    openings: str | None = None
    """File of first user turns; left out, the simulator opens freely."""
    per_opening: int = Field(1, ge=1)
    """Conversations held from each opening."""
    system: str | None = Field(None, min_length=1)
    """The assistant's system prompt."""
    max_rounds: int = Field(20, ge=1)
    """A round is a user turn and its answer."""
    max_in_flight: int | None = Field(None, ge=1)
    """Most conversations at once; left out, as many as the engines' KV caches hold."""
    max_tokens_total: int | None = Field(None, ge=1)
    """The run stops, resumable, once this many tokens are sampled."""
    max_hours: float | None = Field(None, gt=0)
    """The run stops, resumable, after this time."""
    kv_cache_gib: int = Field(1, ge=1)
    """KV cache of each engine in GiB (CPU only)."""
    user_sampling: Sampling = Sampling()
    assistant_sampling: Sampling = Sampling(temperature=0.7, top_p=0.95)
    end_bias: float = 0.0
    """Added to the logit of the end of the conversation; negative values make longer conversations."""
    guardrails: Guardrails = Guardrails()
