"""What a curation recipe may say. Reading one loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from selfplay.data.cleaning.language import check_languages
from selfplay.recipe import Operational, Settings
from selfplay.serve.config import EndpointSettings


class Perplexity(Settings):
    """Bounds on the perplexity of the assistant's turns under a model."""

    model: str
    """Model folder that was trained on assistant turns; nano: the embedded assistant."""
    lowest: float = Field(1.0, ge=1)
    """Below: said by heart."""
    highest: float = Field(1e6, gt=1)
    """Above: noise."""

    @model_validator(mode="after")
    def _bounds(self) -> Perplexity:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} is not below highest {self.highest}")
        return self


class Scores(Settings):
    """Scores that a judge, a reward model or people gave."""

    file: str
    """JSON lines {id, score}; a conversation without one is left out."""
    lowest: float


class Reward(Settings):
    """A reward model that is run here."""

    model: str
    """Folder of a sequence classifier with one label and a chat template."""
    lowest: float


class Judge(Settings):
    """A judge that rates whole conversations from 1 to 10; one without a verdict is left out."""

    judge: str
    """Model folder, URL of a chat server, or the name of a model at $OPENAI_BASE_URL."""
    lowest: float = Field(ge=1, le=10)
    max_tokens: int = Field(512, ge=1)
    """Longest verdict in tokens."""
    structured: bool = False
    """Ask for JSON by schema instead of free text."""
    seed: int = 0
    endpoint: EndpointSettings = EndpointSettings()
    """How its server is used."""


class CurateConfig(Settings):
    """A curation recipe: one field per step, in the order the steps are taken."""

    renamed: ClassVar[Mapping[str, str]] = {
        "endings": "end_reasons",
        "personal": "pii",
        "against": "dedup_against",
        "benchmarks": "decontaminate_against",
        "memorised_from": "memorization_reference",
        "banned": "banned_words",
    }

    description: Operational[str] = ""
    """One line for `selfplay recipes`."""
    end_reasons: tuple[str, ...] = ("user_ended",)
    """Reasons of ending that are kept; `guardrail` stands for all of its kind. People's conversations have none."""
    min_rounds: int = Field(1, ge=1)
    max_rounds: int | None = Field(None, ge=1)
    max_turn_words: int | None = Field(None, ge=1)
    """Longest turn, in words."""
    max_tokens: int | None = Field(None, ge=16)
    """Longest conversation, in tokens of its texts."""
    tokenizer: str = "nano"
    """Folder of the tokenizer that counts them."""
    role_drift: bool = True
    """Drop where the user speaks as the assistant (English phrases, or its last turn said back)."""
    repeats: bool = True
    """Drop where a side says a turn of four words or more again."""
    refusals: bool = True
    """Drop where the assistant refuses (English phrases)."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages to keep; none: all."""
    banned_words: str | None = None
    """File of words that no turn may hold, a line each."""
    pii: bool = True
    """Drop where there are e-mail addresses, phone numbers, keys or card numbers. Generated ones are made up: mask them
    with `selfplay data clean --personal mask` instead, if they are wanted."""
    decontaminate_against: tuple[str, ...] = ()
    """Question files; what shares 13 words in a row with a question is dropped."""
    duplicates: bool = True
    """Drop what says the same as an earlier conversation."""
    near_duplicates: float | None = Field(0.8, gt=0.3, lt=1)
    """Drop what is at least this similar (Jaccard, 5-word shingles) to an earlier one that is kept."""
    dedup_against: tuple[str, ...] = ()
    """Runs, files or catalogue names whose conversations count as earlier ones: other iterations, human data."""
    perplexity: Perplexity | None = None
    scores: Scores | None = None
    reward: Reward | None = None
    judge: Judge | None = None
    memorization_reference: tuple[str, ...] = ()
    """What the simulator was trained on: user turns that copy 50 characters of its user turns are counted and shown."""

    @field_validator("languages")
    @classmethod
    def _codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        return check_languages(codes)
