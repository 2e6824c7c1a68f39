"""Trained sides: the differences between training a user simulator, an assistant, and a base for both.

The trainer takes a `TrainedSide` and knows neither side itself: `simulator.train` and `assistant.train` describe
theirs, and the base that both start from is described here. The differences are whose tokens carry loss, which turns of
a conversation the side can see, and whether it learns to end one.
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
    """Description of a side for the trainer; it holds plain values, so that launched processes can read it as JSON."""

    name: str
    """The name in `selfplay train NAME`."""
    role: TrainedRole
    """Whose tokens carry loss."""
    sees_system_prompt: bool
    ends_conversations: bool
    """Whether the side learns `<|endconversation|>`, and stops at it."""
    opens: str
    """Whose turn the generation prompt of the saved chat template opens."""
    tag: str
    """Tag in the model card."""
    summary: str
    """Sentence in the model card."""

    def view(self, conversation: Conversation) -> Conversation:
        """Return the conversation as this side sees it."""
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
    """Load a training recipe with overrides, and check that it trains the given side.

    Args:
        overrides: `lora: True` turns adapters on where the recipe has none.

    Raises:
        ConfigError: the recipe trains another role.
    """
    settings = dict(overrides)
    lora = settings.pop("lora", None)
    config = load_recipe(recipe, TrainConfig, settings, assigned)
    if lora and config.lora is None:
        config = load_recipe(recipe, TrainConfig, {**settings, "lora": {}}, assigned)
    if config.role != side.role:
        raise ConfigError(f"recipe {recipe!r} trains role {config.role!r}; `train {side.name}` needs role: {side.role}")
    return config
