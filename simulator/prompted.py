"""Prompted user simulator: an assistant model that is instructed to play the user, the baseline of trained simulators.

The roles of the conversation are swapped: the user's turns become the model's own turns, the assistant's turns become
the other side's, and an instruction opens the conversation. The model ends it by writing <|endconversation|>.

Trap: here the end of the conversation is plain text of several tokens, never the control token.
Source: the prompted baselines of UserLM (arXiv:2510.06552) and PlatoLM (arXiv:2308.11534); the wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from selfplay.chat.conversation import Conversation, Role, Turn
from selfplay.chat.families import END_OF_CONVERSATION
from selfplay.chat.rendering import ChatRenderer, Rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = (
    "You are a person who talks to an AI assistant. Write what the person says next and nothing else: short, plain, "
    "one message at a time. Do not answer as the assistant. When you have what you came for, say only "
    f"{END_OF_CONVERSATION}"
)
_TURNED: dict[Role, Role] = {"user": "assistant", "assistant": "user"}


class PromptedUser(ChatRenderer):
    """Renders the user's side of a conversation with the chat template of an assistant model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        """Bind the model's own template; see `ChatRenderer`."""
        super().__init__(tokenizer, template)
        self.end_of_conversation_id = None  # it ends in plain text: a control token, if any, means nothing to it

    def prompt_ids(self, turns: Sequence[Turn], own_role: Role) -> list[int]:
        """Token ids of the prompt, up to where the model writes the user's next turn."""
        return super().prompt_ids(_turned(turns), "assistant")

    def render(self, conversation: Conversation) -> Rendered:
        """Render the whole conversation, with its end in plain text where it is known to end.

        The loss mask covers each of the user's turns and the token that ends it. It is computed from the lengths of
        prompts, so the template needs no generation tags.
        """
        turns = conversation.turns
        if conversation.has_end_target:
            turns = (*turns, Turn("user", END_OF_CONVERSATION))
        ids, _ = super().render(Conversation(conversation.id, tuple(_turned(turns)), complete=False))
        mask = [0] * len(ids)
        for number, turn in enumerate(turns):
            if turn.role == "user" and number >= conversation.context:
                start = len(self.prompt_ids(turns[:number], "user"))
                # Text is never control: the first special token after it ends the turn, whatever the template calls it.
                stop = next((at + 1 for at in range(start, len(ids)) if ids[at] in self.special_tokens), len(ids))
                mask[start:stop] = [1] * (stop - start)
        return Rendered(ids, mask)

    def end_ids(self) -> list[int]:
        """Token ids of the text that ends the conversation; what follows it does not matter, as in self-play."""
        return self.encode_text(END_OF_CONVERSATION)

    def parse_sampled(self, text: str) -> tuple[str, bool]:
        """Return a sampled turn without the text that ends the conversation, and whether it contained that text."""
        before, ended, _ = text.partition(END_OF_CONVERSATION)
        return (before.strip(), True) if ended else (text, False)


def _turned(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with their roles swapped, behind the instruction; system turns become the person's intent."""
    intents = [turn.content for turn in turns if turn.role == "system"]
    opening = "\n\n".join([INSTRUCTION, *(f"What you want: {intent}" for intent in intents)])
    turned = [replace(turn, role=_TURNED[turn.role]) for turn in turns if turn.role != "system"]
    return [Turn("user", opening, "fixed"), *turned]
