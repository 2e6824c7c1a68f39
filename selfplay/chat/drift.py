"""Role drift: a user who starts answering. An assistant's set phrases (English), or its last turn said back."""

from __future__ import annotations

import re

SHORT = 4
"""Turns below this many words ("Yes.", "No, thank you.") may recur, as people's do."""

_DRIFT = re.compile(
    r"\bas an ai\b|\bi am an ai\b|\bi'm an ai\b"
    r"|\b(how|what) (can|may|else can|could) i (help|assist|do for) you\b"
    r"|\b(can|may|could) i (help|assist) you with\b"
    r"|\b(anything|something) else i can (help|assist|do)\b"
    r"|^(assistant|ai|bot|chatgpt)\s*:",
    re.IGNORECASE,
)


def is_role_drift(text: str, answered: str | None) -> bool:
    """Whether a user turn speaks as the assistant; `answered` is the assistant's turn before it."""
    echo = answered is not None and len(text.split()) >= SHORT and normalise(text) == normalise(answered)
    return echo or _DRIFT.search(text) is not None


def normalise(text: str) -> str:
    """The text without differences of case and spacing, to find repeats by."""
    return " ".join(text.casefold().split())
