"""Settings of the user simulator scorecard and of judged benchmarks.

The docstring of a field is its description, so it is user-facing text.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfplay.recipe import Operational, Settings
from selfplay.serve.config import EndpointSettings


class ScorecardConfig(Settings):
    """Settings of a scorecard: its rows, the people to compare with, and the optional classifiers."""

    models: dict[str, str] = Field(default={})
    """Row → folder of a trained simulator (or of a base that was trained on both sides)."""
    prompted: dict[str, str] = Field(default={})
    """Row → folder of an assistant that is told to play the user."""
    conversations: dict[str, str] = Field(default={})
    """Row → run folder or file of conversations that exist; beside a model of the same row they are its self-play."""
    data: tuple[str, ...] = ()
    """Held-out people whose turns and endings are predicted."""
    human: tuple[str, ...] = ()
    """Human conversations that free self-play is compared with; left out, the held-out share of what the first
    model was trained on where it is known and here, else `data`."""
    temperatures: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    """The first model at each of these, a row each; left out, at the recipe's."""
    intents: bool = False
    """The models were trained with an intent as their system turn (as UserLM-8b): score with it too. Prompted
    models are always scored with it too, where people's conversations carry one."""
    embeddings: str | None = None
    """A sentence-transformers model, for topic diversity."""
    encoder: str | None = None
    """Model folder that is fine-tuned to tell simulated turns from people's."""
    detector: str | None = None
    """URL of a detector of machine-written text."""
    tokenizer: str = "nano"
    """Folder whose tokenizer counts tokens, for all rows alike."""


class JudgeEndpoint(EndpointSettings):
    """Settings of the judge's server."""

    max_concurrency: Operational[int] = Field(64, ge=1)
    """Most requests at once; how many it really is follows the server."""


class JudgeConfig(Settings):
    """Settings of a judged benchmark: the question set, the models that answer, and the judge."""

    set: str
    """Shipped question set, or a YAML file of one."""
    data: str | None = None
    """Folder of question files and judge prompts; left out, $SELFPLAY_BENCH_DATA, then the hub."""
    models: dict[str, str] = Field(default={})
    """Name → model folder, URL of a chat server, or a name whose answers are known. Left out: all that have answers."""
    judge: str | None = None
    """Model folder, URL of a chat server, or the name of a model at $OPENAI_BASE_URL. Left out: answers only."""
    mode: Literal["single", "pairwise-baseline", "pairwise-all"] = "single"
    reference: bool = True
    """Show the judge reference answers in the categories that have them, as FastChat does."""
    baseline: str | None = None
    """The model others are compared with; left out, the set's."""
    repeats: int = Field(1, ge=1)
    """Answers to each question."""
    judge_repeats: int = Field(1, ge=1)
    """Verdicts on each answer; the median counts."""
    max_tokens: int = Field(1024, ge=1)
    """Longest answer in tokens."""
    judge_max_tokens: int = Field(2048, ge=1)
    """Longest judgment in tokens."""
    structured: bool = False
    """Ask the judge for JSON by schema instead of free text."""
    seed: int = 0
    endpoint: EndpointSettings = EndpointSettings()
    """How servers of models are used."""
    judge_endpoint: JudgeEndpoint = JudgeEndpoint()
    """How the judge's server is used."""
    kv_cache_gib: Operational[int] = Field(1, ge=1)
    """KV cache of an engine in GiB (CPU only)."""

    @model_validator(mode="after")
    def _something_to_do(self) -> JudgeConfig:
        if self.judge is None and not self.models:
            raise ValueError("nothing to do: give models to answer the questions, a judge, or both")
        return self
