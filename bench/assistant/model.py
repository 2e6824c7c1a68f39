"""A model that is up, as answering and judging see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from selfplay.serve.config import Sampling
from selfplay.serve.turns import Sampler


class Model(Protocol):
    """An engine here or a server somewhere."""

    @property
    def name(self) -> str:
        """What files call it."""
        ...

    def sampler(self, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> Sampler:
        """Draws its turns; with a JSON schema they follow it."""
        ...
