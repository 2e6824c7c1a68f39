"""Settings of the assistant: its model, its system prompt and its sampling."""

from __future__ import annotations

from pydantic import Field

from selfplay.recipe import Operational, Settings
from selfplay.serve.config import EndpointSettings, Placement, Sampling


class AssistantConfig(Settings):
    """Settings of the assistant in a self-play run."""

    model: str = "nano"
    """Folder of the assistant, or the URL of a chat server; nano: the embedded one."""
    system: str | None = Field(None, min_length=1)
    """The assistant's system prompt."""
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.95)
    endpoint: EndpointSettings = EndpointSettings()
    """How the assistant's server is used."""
    engine: Operational[Placement] = Placement()
    """Where the assistant's engines run; both sides' engines when both name the same folder."""
