"""Resolution of the user simulator's model: a trained UserGPT, or an assistant model that is prompted to play the user.

It loads tokenizers and chat templates and no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfplay.chat.conversation import Role
from selfplay.chat.models import ModelKind, RoleModel, for_both_sides, load_renderer, load_tokenizer, locate_model
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ConfigError, ModelError
from selfplay.serve.config import is_url
from simulator.config import SimulatorConfig
from simulator.prompted import PromptedUser

if TYPE_CHECKING:
    from selfplay.chat.models import TokenizerLoader


def resolve_simulator(config: SimulatorConfig, load: TokenizerLoader | None = None) -> RoleModel:
    """Find and check the model that plays the user.

    Raises:
        ModelError: there is no usable model folder or tokenizer.
        ConfigError: the model is a server and no tokenizer folder is named.
    """
    kind: ModelKind = "assistant" if config.prompted else "simulator"
    if not is_url(config.model):
        folder = locate_model(config.model, kind)
        return RoleModel("user", folder, None, load_user_renderer(folder, prompted=config.prompted, load=load), folder)
    if config.endpoint.tokenizer is None:
        raise ConfigError(
            f"the simulator is {config.model}: its prompts are rendered here; name the folder of its tokenizer and "
            "template with --simulator-tokenizer"
        )
    folder = locate_model(config.endpoint.tokenizer, "simulator")
    renderer = load_user_renderer(folder, prompted=config.prompted, load=load)
    return RoleModel("user", None, config.model, renderer, folder)


def load_user_renderer(folder: Path, *, prompted: bool = False, load: TokenizerLoader | None = None) -> ChatRenderer:
    """Load the tokenizer and chat template of a folder, and check that they can speak as the user.

    Args:
        prompted: the folder holds an assistant, which is prompted to play the user.

    Raises:
        ModelError: there is no usable tokenizer or template, it opens the other side's turn, or a simulator has no
            end-of-conversation token.
    """
    return load_prompted_renderer(folder, "user", load) if prompted else load_renderer(folder, "user", load)


def load_prompted_renderer(folder: Path, role: Role, load: TokenizerLoader | None = None) -> ChatRenderer:
    """Load the renderer of an assistant model that plays either side: the user by prompting, the assistant unchanged.

    Raises:
        ModelError: there is no usable tokenizer or template, or it does not open an assistant turn.
    """
    if role != "user":
        return load_renderer(folder, role, load)
    tokenizer = (load or load_tokenizer)(folder)
    renderer = PromptedUser(tokenizer, for_both_sides(tokenizer.chat_template, "assistant"))
    if not renderer.opens_turn_of("assistant"):
        raise ModelError(
            f"{folder}: its chat template does not open an assistant turn, so it cannot be told to play the "
            "user; a trained simulator is used without simulator.prompted"
        )
    return renderer
