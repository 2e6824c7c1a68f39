"""The assistant's model: a folder with a chat template, or a chat server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assistant.config import AssistantConfig
from selfplay.chat.models import RoleModel, load_renderer, locate_model
from selfplay.serve.config import is_url

if TYPE_CHECKING:
    from selfplay.chat.models import TokenizerLoader


def resolve_assistant(config: AssistantConfig, load: TokenizerLoader | None = None) -> RoleModel:
    """The model of the answering side, found and checked.

    Args:
        load: the tokenizer of a folder; a cached one, where both sides of a run share a folder.

    Raises:
        ModelError: no usable model folder or tokenizer.
    """
    if is_url(config.model):
        return RoleModel("assistant", None, config.model, None)
    folder = locate_model(config.model, "assistant")
    return RoleModel("assistant", folder, None, load_renderer(folder, "assistant", load), folder)
