"""Settings of a cleaning recipe. Reading one loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from selfplay.data.cleaning.language import check_languages
from selfplay.recipe import Operational, Settings


class CleanConfig(Settings):
    """A cleaning recipe: one field per step, in the order the steps are taken."""

    renamed: ClassVar[Mapping[str, str]] = {"personal": "pii"}

    description: Operational[str] = ""
    """One line for `selfplay recipes`."""
    html: bool = True
    """Turns that are HTML become Markdown."""
    artefacts: bool = True
    """Take out what a chat page adds to a copied conversation: "Copy code", "2 / 2"."""
    pii: Literal["keep", "mask", "drop"] = "keep"
    """E-mail addresses, phone numbers, keys and card numbers: leave them, mask them, or drop the conversation."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages to keep (en, zh); none: all."""
    min_rounds: int = Field(0, ge=0)
    """Fewest rounds of a conversation; 2 drops single-turn ones."""
    max_tokens: int | None = Field(None, ge=16)
    """Cut longer conversations into pieces of at most this many tokens."""
    tokenizer: str = "nano"
    """Folder of the tokenizer that counts them (the one the model will have)."""
    duplicates: bool = True
    """Drop conversations that say the same, turn by turn, as an earlier one."""
    near_duplicates: float | None = Field(None, gt=0.3, lt=1)
    """Drop conversations at least this similar (Jaccard, by 5-word shingles) to an earlier one that is kept."""
    strict: bool = False
    """Stop at the first bad row instead of counting and skipping it."""

    @field_validator("languages")
    @classmethod
    def _codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        return check_languages(codes)
