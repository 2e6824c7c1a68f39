"""Guardrails on sampled user turns: named rules; the first rule that a turn breaks is the reason to resample.

The rules see the text and the history and know nothing of models or sampling; `simulator.speaker` resamples.

Empty turns, verbatim repeats, role drift and early endings follow PlatoLM (arXiv:2308.11534); opening words and length
limits follow UserLM's generation set-up (arXiv:2510.06552).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from selfplay.chat.conversation import Turn
from selfplay.chat.drift import SHORT, is_role_drift, normalise
from selfplay.recipe import Settings


class Guardrails(Settings):
    """Settings of the guardrails: which rules are on, and how often a turn is resampled."""

    resamples: int = Field(4, ge=0)
    """Attempts after the first before the conversation ends with the broken rule as its reason."""
    empty: bool = True
    """The turn has no text."""
    repeat: bool = True
    """The turn repeats an earlier user turn word for word (turns below 4 words excepted)."""
    role_drift: bool = True
    """The user starts answering: it uses an assistant's set phrases, or repeats the assistant's last turn."""
    min_rounds: int = Field(1, ge=0)
    """Ending before this many answered rounds is refused; 0 allows any ending."""
    banned_openers: tuple[str, ...] = ()
    """Words no turn may start with."""
    max_words: int | None = Field(None, ge=1)
    """Longest user turn in words; a turn cut by the token limit breaks this rule too."""

    @classmethod
    def off(cls) -> Guardrails:
        """Guardrails with every rule off, for evaluation: the model's own output is scored."""
        return cls(empty=False, repeat=False, role_drift=False, min_rounds=0)


def broken_rule(guardrails: Guardrails, history: Sequence[Turn], text: str, *, ends: bool, cut: bool) -> str | None:
    """Return the name of the first rule that a sampled user turn breaks, or None.

    Args:
        history: the turns before it.
        ends: the model ended the conversation instead of speaking.
        cut: the token limit cut the turn.
    """
    # An ending has no text, so no other rule applies to it.
    if ends:
        rounds = sum(turn.role == "assistant" for turn in history)
        return "early_end" if rounds < guardrails.min_rounds else None
    words = text.split()
    earlier = {normalise(turn.content) for turn in history if turn.role == "user"}
    if guardrails.empty and not words:
        return "empty"
    if guardrails.repeat and len(words) >= SHORT and normalise(text) in earlier:
        return "repeat"
    answered = next((turn.content for turn in reversed(history) if turn.role == "assistant"), None)
    if guardrails.role_drift and is_role_drift(text, answered):
        return "role_drift"
    if words and _bare(words[0]) in {_bare(word) for word in guardrails.banned_openers}:
        return "banned_opener"
    if guardrails.max_words is not None and (cut or len(words) > guardrails.max_words):
        return "too_long"
    return None


def _bare(word: str) -> str:
    """A word in lower case without the punctuation around it."""
    return word.casefold().strip(".,;:!?'\"")
