"""Names of the template families and the tokens each one needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from selfplay.chat.conversation import TrainedRole
from selfplay.errors import ConfigError

END_OF_CONVERSATION = "<|endconversation|>"


@dataclass(frozen=True, slots=True)
class Family:
    """A chat-template family: the end-of-turn token and every special token its text is made of."""

    name: str
    end_of_turn: str
    special_tokens: tuple[str, ...]

    def template(self, role: TrainedRole | None = None) -> str:
        """The Jinja text of the variant that trains `role`; without a role the family's own template."""
        name = self.name if role is None else f"{self.name}_{role}"
        return files("selfplay.chat.templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


FAMILIES = {
    "nano": Family("nano", "<|im_end|>", ("<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", END_OF_CONVERSATION))
}


def family(name: str) -> Family:
    """Look a family up by name.

    Raises:
        ConfigError: no such family.
    """
    if name not in FAMILIES:
        raise ConfigError(f"unknown template family {name!r}; choose one of: {', '.join(FAMILIES)}")
    return FAMILIES[name]
