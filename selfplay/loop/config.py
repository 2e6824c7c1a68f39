"""What a loop recipe may say: the stages of an iteration and what each is given. Reading one loads no model code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfplay.loop.metrics import CORPUS, NAMES, USERS

Stage = Literal["simulator", "generate", "curate", "assistant", "bench"]
STAGES: tuple[Stage, ...] = ("simulator", "generate", "curate", "assistant", "bench")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SimulatorStage(_Strict):
    """Who plays the user."""

    train: Literal["never", "first", "every"] = "never"
    """In which iterations UserGPT is trained."""
    model: str = "nano"
    """UserGPT until it is trained: model folder; nano: the embedded one."""
    recipe: str = "nano/simulator"
    settings: dict[str, Any] = {}
    """Settings of the recipe by dotted key: {"optim.max_steps": 20}."""


class GenerateStage(_Strict):
    """The conversations of an iteration. Seeds differ by iteration."""

    recipe: str = "nano/generate"
    settings: dict[str, Any] = {"conversations": 400}


class CurateStage(_Strict):
    """What is learned from. Earlier iterations count as earlier conversations."""

    recipe: str = "curate/default"
    settings: dict[str, Any] = {}


class AssistantStage(_Strict):
    """The next assistant."""

    first: str = "nano"
    """The assistant of the first iteration: model folder; nano: the embedded one."""
    start: Literal["first", "last"] = "first"
    """What is fine-tuned: the first assistant each time, or the last one."""
    recipe: str = "nano/assistant"
    settings: dict[str, Any] = {}
    human: tuple[str, ...] = ("sample",)
    """Human data that is learned with the generated, as in a training recipe."""
    human_share: float = Field(0.5, gt=0, lt=1)
    """Share of people's conversations among those learned from. Some have to be there: models that learn from their own
    output alone lose its rare parts (Shumailov et al. 2024)."""


class BenchStage(_Strict):
    """What each iteration is measured by."""

    people: tuple[str, ...] = ("sample",)
    """Held-out people: their assistants' turns are predicted, their users are beside the simulated ones."""
    most: int = Field(400, ge=10)
    """Conversations of them that are predicted."""
    examples: int = Field(4, ge=0)
    """Of them, openings that every iteration goes on from, to be read side by side."""
    judge: str | None = None
    """Who judges the assistants: model folder, URL of a chat server, or a model's name at $OPENAI_BASE_URL. Left out:
    no question is asked."""
    sets: tuple[str, ...] = ("mt-bench",)
    """Question sets they answer, shipped ones or YAML files."""
    settings: dict[str, Any] = {}
    """Settings of `selfplay bench mt-bench` by dotted key: {"judge_endpoint.max_concurrency": 8}."""


class Limit(_Strict):
    """How far a figure may drift before it is an alarm."""

    figure: str
    """A figure of the loop's report: distinct_2, bits_per_byte, human_share, mt-bench ..."""
    of: Literal["itself", "people", "first"] = "itself"
    """What is limited: the figure, or its ratio to people's, or to that of the first iteration that has it."""
    lowest: float | None = None
    highest: float | None = None
    then: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.lowest is None and self.highest is None:
            raise ValueError("limits nothing; give lowest, highest or both")
        people = [figure.name for figure in (*USERS, *CORPUS) if figure.name != "ended_by_user"]
        if self.of == "people" and self.figure not in people:
            raise ValueError(f"people have no {self.figure}; of people there are {', '.join(people)}")
        return self


HEALTH = (
    Limit(figure="distinct_2", of="people", lowest=0.5, highest=2),
    Limit(figure="distinct_2", of="first", lowest=0.7, then="stop"),
    Limit(figure="words_per_turn", of="people", lowest=0.5, highest=2),
    Limit(figure="words_per_turn", of="first", lowest=0.5, highest=2, then="stop"),
    Limit(figure="rounds", of="people", lowest=0.5, highest=2),
    Limit(figure="rounds", of="first", lowest=0.5, highest=2, then="stop"),
    Limit(figure="ended_by_user", of="first", lowest=0.7, then="stop"),
    Limit(figure="naturalness_auc", highest=0.95),
    Limit(figure="naturalness_auc", of="first", highest=1.25),
    Limit(figure="bits_per_byte", of="first", highest=1.05),
    Limit(figure="bits_per_byte", of="first", highest=1.15, then="stop"),
    Limit(figure="human_share", lowest=0.1, then="stop"),
)
"""What models that learn from their own output lose first: rare words, length, endings, likeness to people, what they
knew of people's data (Shumailov et al. 2024, 10.1038/s41586-024-07566-y), and how much of the data has to be people's
for it not to happen (Alemohammad et al., arXiv:2307.01850; Gerstgrasser et al., arXiv:2404.01413)."""


class StopRules(_Strict):
    """When a loop is over before its last iteration."""

    no_gain_in: str | None = None
    """A score of the report, bits_per_byte or a question set: stop where it gains nothing beyond its 95 % interval."""
    patience: int = Field(1, ge=1)
    """Iterations in a row without a gain."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens sampled in self-play and supervised in training, all iterations together."""
    max_hours: float | None = Field(None, gt=0)
    """Time of all stages together."""


class LoopConfig(_Strict):
    """A train-generate loop."""

    description: str = ""
    """One line for `selfplay recipes`."""
    iterations: int = Field(2, ge=1)
    seed: int = 0
    simulator: SimulatorStage = SimulatorStage()
    generate: GenerateStage = GenerateStage()
    curate: CurateStage = CurateStage()
    assistant: AssistantStage = AssistantStage()
    bench: BenchStage = BenchStage()
    health: tuple[Limit, ...] = HEALTH
    """Looked at after each iteration."""
    stop: StopRules = StopRules()

    @model_validator(mode="after")
    def _figures_are_there(self) -> LoopConfig:
        sets = [Path(name).stem for name in self.bench.sets] if self.bench.judge is not None else []
        unknown = [limit.figure for limit in self.health if limit.figure not in {*NAMES, *sets}]
        if unknown:
            raise ValueError(f"health: no figure {unknown[0]!r}; there are {', '.join(sorted({*NAMES, *sets}))}")
        scores = ["bits_per_byte", *sets]
        if self.stop.no_gain_in not in (None, *scores):
            raise ValueError(f"stop.no_gain_in: no score {self.stop.no_gain_in!r}; there are {', '.join(scores)}")
        return self
