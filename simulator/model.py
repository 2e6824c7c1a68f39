"""Models that play the user: a trained UserGPT, or an assistant model that is prompted to play one."""

from __future__ import annotations

from pathlib import Path

from selfplay.chat.conversation import Role
from selfplay.chat.models import for_both_sides, load_renderer, load_tokenizer
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ModelError
from simulator.prompted import PromptedUser


def load_user_renderer(folder: Path, *, prompted: bool = False) -> ChatRenderer:
    """The tokenizer and chat template of a folder, checked to speak as the user.

    Args:
        prompted: the folder holds an assistant, which is prompted to play the user.

    Raises:
        ModelError: no usable tokenizer or template, one that opens the other side's turn, or a simulator without an
            end-of-conversation token.
    """
    return load_prompted_renderer(folder, "user") if prompted else load_renderer(folder, "user")


def load_prompted_renderer(folder: Path, role: Role) -> ChatRenderer:
    """The renderer of an assistant model that plays either side: the user by prompting, the assistant as it is.

    Raises:
        ModelError: no usable tokenizer or template, or one that does not open an assistant turn.
    """
    if role != "user":
        return load_renderer(folder, role)
    tokenizer = load_tokenizer(folder)
    renderer = PromptedUser(tokenizer, for_both_sides(tokenizer.chat_template, "assistant"))
    if not renderer.opens("assistant"):
        raise ModelError(
            f"{folder}: its chat template does not open an assistant turn, so it cannot be told to play the "
            "user; a trained simulator is used without prompted_user"
        )
    return renderer
