"""Settings of a curation recipe: one field for each curation step. Reading a recipe loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from selfplay.data.cleaning.language import check_languages
from selfplay.recipe import Operational, Settings
from selfplay.serve.config import EndpointSettings


class Perplexity(Settings):
    """Bounds on the perplexity of the assistant's turns, computed with a model."""

    model: str
    """Folder of a model that was trained on assistant turns; nano: the embedded assistant."""
    lowest: float = Field(1.0, ge=1)
    """Conversations with a lower perplexity are dropped: the model has memorised such text."""
    highest: float = Field(1e6, gt=1)
    """Conversations with a higher perplexity are dropped as noise."""

    @model_validator(mode="after")
    def _bounds(self) -> Perplexity:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} is not below highest {self.highest}")
        return self


class Scores(Settings):
    """A file of scores that come from elsewhere: a judge, a reward model or people."""

    file: str
    """JSON lines {id, score}; a conversation without a score is dropped."""
    lowest: float


class Reward(Settings):
    """A reward model that is run on this machine."""

    model: str
    """Folder of a sequence classifier with one label and a chat template."""
    lowest: float


class Judge(Settings):
    """A judge model that rates whole conversations from 1 to 10; a conversation without a verdict is dropped."""

    judge: str
    """Model folder, URL of a chat server, or the name of a model at $OPENAI_BASE_URL."""
    lowest: float = Field(ge=1, le=10)
    max_tokens: int = Field(512, ge=1)
    """Maximum length of a verdict in tokens."""
    structured: bool = False
    """Ask for JSON that follows a schema instead of free text."""
    seed: int = 0
    endpoint: EndpointSettings = EndpointSettings()
    """How the judge's server is used."""


class CurateConfig(Settings):
    """A curation recipe: one field for each curation step, in the order in which the steps run."""

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
    """End reasons that are kept; `guardrail` stands for every guardrail. Human conversations have none and pass."""
    min_rounds: int = Field(1, ge=1)
    max_rounds: int | None = Field(None, ge=1)
    max_turn_words: int | None = Field(None, ge=1)
    """Maximum length of a turn in words."""
    max_tokens: int | None = Field(None, ge=16)
    """Maximum length of a conversation: the tokens of its texts."""
    tokenizer: str = "nano"
    """Folder of the tokenizer that counts the tokens of `max_tokens`."""
    role_drift: bool = True
    """Drop where the user speaks as the assistant (English phrases, or a repetition of the assistant's last turn)."""
    repeats: bool = True
    """Drop where one side repeats a turn of four words or more."""
    refusals: bool = True
    """Drop where the assistant refuses (English phrases)."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages to keep; an empty list keeps all."""
    banned_words: str | None = None
    """File of words that no turn may contain, one word a line."""
    pii: bool = True
    """Drop where there are e-mail addresses, phone numbers, keys or card numbers. In generated conversations these are
    invented: mask them with `selfplay data clean --personal mask` instead to keep the conversations."""
    decontaminate_against: tuple[str, ...] = ()
    """Benchmark question files; a conversation that shares 13 consecutive words with a question is dropped."""
    duplicates: bool = True
    """Drop exact duplicates of an earlier conversation."""
    near_duplicates: float | None = Field(0.8, gt=0.3, lt=1)
    """Drop conversations that are at least this similar (Jaccard, 5-word shingles) to an earlier one that is kept."""
    dedup_against: tuple[str, ...] = ()
    """Runs, files or catalogue names whose conversations count as earlier ones: other iterations, human data."""
    perplexity: Perplexity | None = None
    scores: Scores | None = None
    reward: Reward | None = None
    judge: Judge | None = None
    memorization_reference: tuple[str, ...] = ()
    """The simulator's training data: user turns that copy 50 characters of its user turns are counted and reported."""

    @field_validator("languages")
    @classmethod
    def _codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        return check_languages(codes)
