"""Turns and conversations. Knows nothing of tokens, models or files.

turn          one message by one role
round         a user turn and the assistant turn that answers it
conversation  an optional system turn, then user and assistant turns that alternate, the user first
complete      the source shows the conversation to its end, so that the end itself can be learned
context       leading turns of a piece that are shown and not learned: what was said before it, or a turn that
              continues a talk whose beginning is not there
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from selfplay.errors import InvalidConversation

Role = Literal["system", "user", "assistant"]
TrainedRole = Literal["user", "assistant", "all"]
Origin = Literal["sampled", "human", "fixed"]
"""How a turn came about: drawn from a model, written by a person, or given (a system prompt, an opening)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `token_ids` are the ids a model sampled for it, without the end-of-turn token."""

    role: Role
    content: str
    origin: Origin = "human"
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns with a name, where they came from (`meta`) and why they stopped (`ended`, simulated ones only).

    `meta.group` names what must not be split between training and validation: one person, or one longer talk.
    """

    id: str
    turns: tuple[Turn, ...]
    complete: bool = True
    ended: str | None = None
    context: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Number of answered user turns."""
        return sum(turn.role == "assistant" for turn in self.turns)

    @property
    def has_end_target(self) -> bool:
        """Whether an end-of-conversation target belongs after the last turn."""
        return self.complete and bool(self.turns) and self.turns[-1].role == "assistant"

    def of(self, role: Role) -> list[str]:
        """The texts of one role, in order."""
        return [turn.content for turn in self.turns if turn.role == role]

    def messages(self) -> list[dict[str, str]]:
        """The turns as role/content messages."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]


def hide_system_prompt(conversation: Conversation) -> Conversation:
    """The conversation as its user knows it: the assistant's system prompt is hidden from people."""
    turns = conversation.turns
    if not turns or turns[0].role != "system":
        return conversation
    return replace(conversation, turns=turns[1:], context=max(0, conversation.context - 1))


def conversation_from_pairs(
    id: str,
    pairs: Iterable[tuple[Role, str]],
    *,
    complete: bool = True,
    context: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> Conversation:
    """A human conversation from (role, text) pairs, stripped and checked.

    Raises:
        InvalidConversation: see `check_turns`; a group or dataset that holds a lone surrogate.
    """
    for key in ("group", "dataset"):
        if meta and not _is_unicode(str(meta.get(key, ""))):
            raise InvalidConversation(id, f"{key} holds a lone surrogate; repair its encoding")
    turns = tuple(Turn(role, text.strip()) for role, text in pairs)
    check_turns(id, turns)
    return Conversation(id, turns, complete, context=context, meta=meta or {})


def check_turns(id: str, turns: tuple[Turn, ...]) -> None:
    """Refuse turns that no chat template can render faithfully.

    Raises:
        InvalidConversation: no user turn, an empty turn, the assistant first, or two turns of one role in a row.
    """
    if not _is_unicode(id):
        raise InvalidConversation(id, "the id holds a lone surrogate; repair its encoding")
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if not spoken:
        raise InvalidConversation(id, "no turns; a conversation needs at least one user turn")
    if spoken[0].role != "user":
        raise InvalidConversation(id, f"starts with {spoken[0].role!r}; the user has to speak first")
    for number, turn in enumerate(spoken):
        expected = "user" if number % 2 == 0 else "assistant"
        where = f"turn {number + 1} ({turn.role})"
        if turn.role != expected:
            raise InvalidConversation(
                id, f"turn {number + 1} is by {turn.role}, expected {expected}; roles have to alternate"
            )
        if not _is_unicode(turn.content):
            raise InvalidConversation(id, f"{where} holds a lone surrogate; repair its encoding")
        if not turn.content.strip():
            raise InvalidConversation(id, f"{where} is empty; drop the row or fill the turn")


def _is_unicode(text: str) -> bool:
    """Whether the text can be encoded; JSON can smuggle in half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_intent(conversation: Conversation) -> Conversation:
    """The conversation with its intent as a leading system turn, as UserLM-8b is given it. The user's side sees it."""
    intent = Turn("system", str(conversation.meta["intent"]), "fixed")
    heard = hide_system_prompt(conversation)
    return replace(heard, turns=(intent, *heard.turns), context=heard.context + 1 if heard.context else 0)
