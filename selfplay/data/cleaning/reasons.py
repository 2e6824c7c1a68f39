"""Reasons to leave a conversation out that cleaning and curation share, and the names of the duplicate steps.

Each function returns the reason, or None to keep the conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.language import unwanted_language
from selfplay.data.cleaning.personal import masked

Reason = Callable[[Conversation], str | None]
EXACT, NEAR = "exact duplicates", "near duplicates"
REPEATS, SIMILAR = "repeats an earlier one", "is like an earlier one"


def has_pii(conversation: Conversation) -> str | None:
    """E-mail addresses, phone numbers, keys or card numbers in any turn."""
    found = any(masked(turn.content) != turn.content for turn in conversation.turns)
    return "personal data" if found else None


def in_another_language(wanted: frozenset[str]) -> Reason:
    """A language that is not among the wanted ones (ISO 639-1), where it can be told."""

    def reason(conversation: Conversation) -> str | None:
        language = unwanted_language(conversation, wanted)
        return None if language is None else f"language {language}"

    return reason


def too_few_rounds(least: int) -> Reason:
    """Fewer answered user turns than `least`."""
    return lambda conversation: f"fewer than {least} rounds" if conversation.rounds < least else None
