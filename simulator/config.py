"""What a recipe may say about the user's side."""

from __future__ import annotations

from typing import Literal

from selfplay.serve.config import EndpointSettings


class SimulatorEndpoint(EndpointSettings):
    """A server of UserGPT: prompts are rendered here, so its tokenizer and chat template are needed."""

    tokenizer: str | None = None
    """Folder with the simulator's tokenizer and chat template (nano: the embedded one's)."""
    protocol: Literal["token_ids", "text"] = "token_ids"
    """token_ids: vLLM and what follows it, exact histories. text: any server with /v1/completions."""
