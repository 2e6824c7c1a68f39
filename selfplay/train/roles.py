"""Trained roles: what differs between training a user simulator, an assistant, and a base for both.

The trainer takes a `TrainedSide` and knows neither side itself: `simulator.train` and `assistant.train` describe
theirs, and the base that both start from is here. What differs is whose tokens carry loss, what of a conversation the
side can see, and whether it learns to end one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.chat.conversation import Conversation, TrainedRole, hide_system_prompt
from selfplay.errors import ConfigError
from selfplay.recipe import load_recipe
from selfplay.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainedSide:
    """A side as the trainer needs it; plain values, so that it travels to launched processes as JSON."""

    name: str
    """As in `selfplay train NAME`."""
    role: TrainedRole
    """Whose tokens carry loss."""
    sees_system_prompt: bool
    ends_conversations: bool
    """Whether it learns `<|endconversation|>`, and stops at it."""
    opens: str
    """Whose turn the generation prompt of the saved chat template opens."""
    tag: str
    """Of the model card."""
    summary: str
    """One sentence of the model card."""

    def view(self, conversation: Conversation) -> Conversation:
        """The conversation as this side knows it."""
        return conversation if self.sees_system_prompt else hide_system_prompt(conversation)


BASE = TrainedSide(
    name="base",
    role="all",
    sees_system_prompt=True,
    ends_conversations=True,
    opens="assistant",
    tag="base",
    summary="A base model trained on both sides of conversations.",
)


def load_training_recipe(
    side: TrainedSide, recipe: str, overrides: Mapping[str, Any], assigned: Mapping[str, Any] | None = None
) -> TrainConfig:
    """A training recipe with overrides, checked to train the side that was asked for.

    Args:
        overrides: `lora: True` turns adapters on where the recipe has none.

    Raises:
        ConfigError: the recipe trains another role.
    """
    given = dict(overrides)
    lora = given.pop("lora", None)
    config = load_recipe(recipe, TrainConfig, given, assigned)
    if lora and config.lora is None:
        config = load_recipe(recipe, TrainConfig, {**given, "lora": {}}, assigned)
    if config.role != side.role:
        raise ConfigError(f"recipe {recipe!r} trains role {config.role!r}; `train {side.name}` needs role: {side.role}")
    return config
