"""Checks on a sampled user turn. Each is a rule by name; the first one broken is the reason to resample.

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
    """Which checks are on."""

    resamples: int = Field(4, ge=0)
    """Attempts after the first before the conversation ends with the broken rule as its reason."""
    empty: bool = True
    """The turn has no text."""
    repeat: bool = True
    """The turn repeats an earlier user turn word for word (turns below 4 words excepted)."""
    role_drift: bool = True
    """The user starts answering: an assistant's set phrases, or the assistant's last turn said back."""
    min_rounds: int = Field(1, ge=0)
    """Ending before this many answered rounds is refused; 0 allows any ending."""
    banned_openers: tuple[str, ...] = ()
    """Words no turn may start with."""
    max_words: int | None = Field(None, ge=1)
    """Longest user turn in words; a turn cut by the token limit breaks this rule too."""

    @classmethod
    def off(cls) -> Guardrails:
        """Every check off: what the model says is what is scored."""
        return cls(empty=False, repeat=False, role_drift=False, min_rounds=0)


def broken_rule(guardrails: Guardrails, history: Sequence[Turn], text: str, *, ends: bool, cut: bool) -> str | None:
    """The name of the first rule a sampled user turn breaks, or None.

    Args:
        history: turns before it.
        ends: the model ended the conversation instead of speaking.
        cut: the token limit cut the turn.
    """
    if ends:
        rounds = sum(turn.role == "assistant" for turn in history)
        return "early_end" if rounds < guardrails.min_rounds else None
    words = text.split()
    said = {normalise(turn.content) for turn in history if turn.role == "user"}
    if guardrails.empty and not words:
        return "empty"
    if guardrails.repeat and len(words) >= SHORT and normalise(text) in said:
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
    return word.casefold().strip(".,;:!?'\"")
