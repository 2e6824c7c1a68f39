"""Resolution of the assistant's model: a model folder with a chat template, or the URL of a chat server.

It loads the tokenizer and no weights. A chat server renders prompts itself, so no tokenizer is loaded for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assistant.config import AssistantConfig
from selfplay.chat.models import RoleModel, load_renderer, locate_model
from selfplay.serve.config import is_url

if TYPE_CHECKING:
    from selfplay.chat.models import TokenizerLoader


def resolve_assistant(config: AssistantConfig, load: TokenizerLoader | None = None) -> RoleModel:
    """Find and check the assistant's model.

    Args:
        load: loads the tokenizer of a folder; a cached loader where both sides of a run share a folder.

    Raises:
        ModelError: there is no usable model folder or tokenizer.
    """
    if is_url(config.model):
        return RoleModel("assistant", None, config.model, None)
    folder = locate_model(config.model, "assistant")
    return RoleModel("assistant", folder, None, load_renderer(folder, "assistant", load), folder)
