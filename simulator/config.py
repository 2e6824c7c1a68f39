"""Settings of the user simulator: its model, its sampling, its guardrails and its openings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfplay.recipe import Operational, Settings
from selfplay.serve.config import EndpointSettings, Placement, Sampling
from simulator.guardrails import Guardrails


class SimulatorEndpoint(EndpointSettings):
    """A server of a user simulator.

    Prompts are rendered in this process, so the simulator's tokenizer and chat template are needed here.
    """

    tokenizer: str | None = None
    """Folder with the simulator's tokenizer and chat template (nano: the embedded one's)."""
    protocol: Literal["token_ids", "text"] = "token_ids"
    """token_ids: vLLM and servers like it, with exact histories. text: any server with /v1/completions."""


class SimulatorConfig(Settings):
    """Settings of the user simulator in a self-play run."""

    model: str = "nano"
    """Folder of the user simulator, or the URL of a server of it; nano: the embedded one."""
    prompted: bool = False
    """The model is an assistant that is prompted to play the user: the baseline of a trained simulator."""
    sampling: Sampling = Sampling()
    end_logit_bias: float = 0.0
    """Added to the logit of the end of the conversation; negative values make longer conversations."""
    guardrails: Guardrails = Guardrails()
    openings: str | None = None
    """File of first user turns; left out, the simulator opens freely."""
    conversations_per_opening: int = Field(1, ge=1)
    """Number of conversations that start from each opening."""
    endpoint: SimulatorEndpoint = SimulatorEndpoint()
    """How the simulator's server is used."""
    engine: Operational[Placement] = Placement()
    """Where the simulator's engines run."""
