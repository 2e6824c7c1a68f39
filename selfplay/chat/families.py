"""The chat-template families: where each one's text comes from, the tokens it needs, and its variants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from selfplay.chat.conversation import TrainedRole
from selfplay.errors import ConfigError

END_OF_CONVERSATION = "<|endconversation|>"
_TAG = re.compile(r"\{%-? (end)?(user|assistant) -?%\}")


@dataclass(frozen=True, slots=True)
class Family:
    """A chat-template family."""

    name: str
    source: str
    """Whose text it is, with the revision."""
    end_of_turn: str
    needs: tuple[str, ...]
    """Tokens of the text that the tokenizer has to have."""
    adds: tuple[str, ...] = ()
    """Tokens of the text that are added to a tokenizer without them."""
    file: str = ""
    """Template file, where it is not the name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the template file."""
    ends_user_turns: bool = True
    """Whether the family's own text ends user turns with a token; else variants that train them put `end_of_turn`."""
    single_turn: bool = False
    """One user turn, one answer and no system turn."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Every control token of the text, the end of the conversation included."""
        return (*self.needs, *self.adds, END_OF_CONVERSATION)

    def template(self, role: TrainedRole | None = None) -> str:
        """The Jinja text of the variant that trains `role`; without a role the family's own template."""
        source = files("selfplay.chat.templates").joinpath(f"{self.file or self.name}.jinja").read_text("utf-8")
        user_end = "" if self.ends_user_turns or role not in ("user", "all") else self.end_of_turn
        variables = {"trained": role or "", **self.settings, "user_end": user_end}
        used = {name: value for name, value in variables.items() if re.search(rf"\b{name}\b", source)}
        head = "".join(f"{{%- set {name} = {_literal(value)} -%}}\n" for name, value in used.items())
        trained = ("user", "assistant") if role == "all" else (role,)
        return head + _TAG.sub(lambda tag: _generation(tag, trained), source).rstrip("\n")


def _generation(tag: re.Match[str], trained: tuple[str | None, ...]) -> str:
    return f"{{% {tag[1] or ''}generation %}}" if tag[2] in trained else ""


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


_LLAMA = ("<s>", "</s>")
_LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_CHATML = ("<|im_start|>", "<|im_end|>")
_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_REALM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

FAMILIES = {
    known.name: known
    for known in (
        Family("nano", "this package", "<|im_end|>", ("<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>")),
        Family("chatml", "ChatML, without a default system prompt", "<|im_end|>", (), _CHATML),
        Family(
            "qwen",
            "Qwen-7B-Chat (fastchat qwen-7b-chat)",
            "<|im_end|>",
            _CHATML,
            file="chatml",
            settings={"default_system": "You are a helpful assistant."},
        ),
        Family(
            "qwen2.5",
            "Qwen2.5-Instruct (TRL chat_templates/qwen2_5.jinja)",
            "<|im_end|>",
            _CHATML,
            file="chatml",
            settings={"default_system": _QWEN},
        ),
        Family(
            "qwen3",
            "Qwen3-Instruct-2507 (TRL chat_templates/qwen3_instruct_2507.jinja)",
            "<|im_end|>",
            _CHATML,
            file="chatml",
        ),
        Family(
            "llama2",
            "Llama-2-chat (fastchat llama-2)",
            "</s>",
            _LLAMA,
            ends_user_turns=False,
        ),
        Family("llama3", "Meta-Llama-3-Instruct (TRL chat_templates/llama3.jinja)", "<|eot_id|>", _LLAMA3),
        Family("llama3.1", "Llama-3.1-Instruct (TRL chat_templates/llama3_1.jinja)", "<|eot_id|>", _LLAMA3),
        Family("mistral", "Mistral-7B-Instruct (fastchat mistral)", "</s>", _LLAMA, ends_user_turns=False),
        Family(
            "gemma",
            "Gemma 3, and Gemma 1 and 2 where there is no system turn (TRL chat_templates/gemma3.jinja)",
            "<end_of_turn>",
            ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        ),
        Family(
            "vicuna",
            "Vicuna v1.1 (fastchat vicuna_v1.1)",
            "</s>",
            _LLAMA,
            settings={"default_system": _VICUNA},
            ends_user_turns=False,
        ),
        Family(
            "realm",
            "ReaLM and PlatoLM (fastchat ReaLM-7b-v1)",
            "</s>",
            _LLAMA,
            settings={"default_system": _REALM},
        ),
        Family("ultralm", "UltraLM-13b (its model card, revision a65f695)", "</s>", _LLAMA),
        Family(
            "alpaca",
            "Stanford Alpaca (train.py, prompt without input)",
            "</s>",
            _LLAMA,
            settings={"default_system": _ALPACA, "after": ""},
            ends_user_turns=False,
            single_turn=True,
        ),
        Family(
            "alpaca_lora",
            "Alpaca-LoRA (templates/alpaca.json, prompt without input)",
            "</s>",
            _LLAMA,
            file="alpaca",
            settings={"default_system": _ALPACA, "after": "\n"},
            ends_user_turns=False,
            single_turn=True,
        ),
    )
}

FASTCHAT = {
    "vicuna_v1.1": "vicuna",
    "llama-2": "llama2",
    "mistral": "mistral",
    "ReaLM-7b-v1": "realm",
    "qwen-7b-chat": "qwen",
}
"""Conversation names of fastchat (0.2.36) and the family with the same text."""


def family(name: str) -> Family:
    """Look a family up by its name or by the name of fastchat's conversation with the same text.

    Raises:
        ConfigError: no such family.
    """
    known = FAMILIES.get(FASTCHAT.get(name, name))
    if known is None:
        fastchat = ", ".join(other for other in FASTCHAT if other not in FAMILIES)
        raise ConfigError(
            f"unknown template family {name!r}; choose one of: {', '.join(FAMILIES)}; or of fastchat's {fastchat}"
        )
    return known
