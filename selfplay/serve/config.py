"""Settings of engines and servers: sampling, placement on devices, and the use of an endpoint.

Reading them loads no client and no engine.
"""

from __future__ import annotations

from pydantic import Field

from selfplay.recipe import Operational, Settings


class Sampling(Settings):
    """How next tokens are drawn."""

    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(128, ge=1)
    """Longest turn in tokens."""


class Placement(Settings):
    """Where the engines of one model run."""

    replicas: int = Field(1, ge=1)
    """Engines with the same model; conversations are spread over them."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs each replica is split over."""
    devices: tuple[int, ...] | None = None
    """GPUs, in order: the first `tensor_parallel_size` for the first replica, and so on. Left out: dealt out."""
    memory_share: float | None = Field(None, gt=0, le=1)
    """Part of its GPUs' memory each replica may use. Left out: by the size of the weights."""


class EndpointSettings(Settings):
    """How an OpenAI-compatible server is used."""

    model: str | None = None
    """Its name on the server; left out, the only one there."""
    timeout: Operational[float] = Field(300, gt=0)
    """Seconds one reply may take."""
    attempts: Operational[int] = Field(8, ge=1)
    """Tries before a request fails."""
    first_delay: Operational[float] = Field(0.5, ge=0)
    """Seconds before the second try, doubled with each further one up to a minute."""
    max_concurrency: Operational[int] = Field(1024, ge=1)
    """Most requests at once; how many it really is follows the server."""
    max_context: int | None = Field(None, ge=1)
    """Longest prompt plus completion in tokens, where the server does not tell."""
    input_price: Operational[float] = Field(0.0, ge=0)
    """Money per million prompt tokens."""
    output_price: Operational[float] = Field(0.0, ge=0)
    """Money per million sampled tokens."""


KEY_VARIABLES = {"user": "SELFPLAY_SIMULATOR_KEY", "assistant": "SELFPLAY_ASSISTANT_KEY"}
JUDGE_KEY = "SELFPLAY_JUDGE_KEY"
"""Environment variables that hold the keys of servers."""


def is_url(name: str) -> bool:
    """Whether a side is a server rather than a folder."""
    return name.startswith(("http://", "https://"))
