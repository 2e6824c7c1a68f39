"""What a simulator's scorecard is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ScorecardConfig(BaseModel):
    """Rows, people and optional judges of a scorecard."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    models: dict[str, str] = {}
    """Row → folder of a trained simulator (or of a base that was trained on both sides)."""
    prompted: dict[str, str] = {}
    """Row → folder of an assistant that is told to play the user."""
    conversations: dict[str, str] = {}
    """Row → run folder or file of conversations that exist; beside a model of the same row they are its self-play."""
    data: tuple[str, ...] = ()
    """Held-out people whose turns and endings are predicted."""
    people: tuple[str, ...] = ()
    """People whom free self-play is compared with; left out, the held-out share of what the first model was trained on
    where it is known and here, else `data`."""
    temperatures: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    """The first model at each of these, a row each; left out, at the recipe's."""
    intents: bool = False
    """The models were trained with an intent as their system turn (as UserLM-8b): score with it too. Prompted
    models are always scored with it too, where people's conversations carry one."""
    embeddings: str | None = None
    """A sentence-transformers model, for topic diversity."""
    encoder: str | None = None
    """Model folder that is fine-tuned to tell simulated turns from people's."""
    detector: str | None = None
    """URL of a detector of machine-written text."""
    tokenizer: str = "nano"
    """Folder whose tokenizer counts tokens, for all rows alike."""
