"""Settings of a loop recipe: the stages of an iteration, health limits and stopping rules.

Reading one loads no model code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from selfplay.loop.metrics import CORPUS, NAMES, USERS
from selfplay.recipe import Operational, Settings

Stage = Literal["simulator", "generate", "curate", "assistant", "bench"]
STAGES: tuple[Stage, ...] = ("simulator", "generate", "curate", "assistant", "bench")


class SimulatorStage(Settings):
    """Who plays the user."""

    train: Literal["never", "first", "every"] = "never"
    """In which iterations UserGPT is trained."""
    model: str = "nano"
    """UserGPT until it is trained: model folder; nano: the embedded one."""
    recipe: str = "nano/simulator"
    settings: dict[str, Any] = Field(default={})
    """Settings of the recipe by dotted key: {"optim.max_steps": 20}."""


class GenerateStage(Settings):
    """The conversations of an iteration. Seeds differ by iteration."""

    recipe: str = "nano/generate"
    settings: dict[str, Any] = Field(default={"conversations": 400})


class CurateStage(Settings):
    """What is learned from. Earlier iterations count as earlier conversations."""

    recipe: str = "curate/default"
    settings: dict[str, Any] = Field(default={})


class AssistantStage(Settings):
    """The next assistant."""

    model: str = "nano"
    """The assistant of the first iteration: model folder; nano: the embedded one."""
    init_from: Literal["base", "previous"] = "base"
    """What is fine-tuned: the first assistant each time, or that of the previous iteration."""
    recipe: str = "nano/assistant"
    settings: dict[str, Any] = Field(default={})
    human: tuple[str, ...] = ("sample",)
    """Human data that is learned with the generated, as in a training recipe."""
    human_share: float = Field(0.5, gt=0, lt=1)
    """Share of people's conversations among those learned from. Some have to be there: models that learn from their own
    output alone lose its rare parts (Shumailov et al. 2024)."""


class BenchStage(Settings):
    """What each iteration is measured by."""

    human: tuple[str, ...] = ("sample",)
    """Held-out human data: its assistants' turns are predicted, its users are beside the simulated ones."""
    max_conversations: int = Field(400, ge=10)
    """Conversations of them that are predicted."""
    examples: int = Field(4, ge=0)
    """Of them, openings that every iteration goes on from, to be read side by side."""
    judge: str | None = None
    """Who judges the assistants: model folder, URL of a chat server, or a model's name at $OPENAI_BASE_URL. Left out:
    no question is asked."""
    sets: tuple[str, ...] = ("mt-bench",)
    """Question sets they answer, shipped ones or YAML files."""
    settings: dict[str, Any] = Field(default={})
    """Settings of `selfplay bench mt-bench` by dotted key: {"judge_endpoint.max_concurrency": 8}."""


class Limit(Settings):
    """How far a figure may drift before it is an alarm."""

    metric: str
    """A metric of the loop's report: distinct_2, bits_per_byte, human_share, mt-bench ..."""
    relative_to: Literal["human", "first_iteration"] | None = None
    """The ratio that is limited: to the human value, or to that of the first iteration that has one. Left out: the
    metric itself."""
    min: float | None = None
    max: float | None = None
    action: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("limits nothing; give min, max or both")
        people = [figure.name for figure in (*USERS, *CORPUS) if figure.name != "ended_by_user"]
        if self.relative_to == "human" and self.metric not in people:
            raise ValueError(f"human data has no {self.metric}; it has {', '.join(people)}")
        return self


HEALTH = (
    Limit(metric="distinct_2", relative_to="human", min=0.5, max=2),
    Limit(metric="distinct_2", relative_to="first_iteration", min=0.7, action="stop"),
    Limit(metric="words_per_turn", relative_to="human", min=0.5, max=2),
    Limit(metric="words_per_turn", relative_to="first_iteration", min=0.5, max=2, action="stop"),
    Limit(metric="rounds", relative_to="human", min=0.5, max=2),
    Limit(metric="rounds", relative_to="first_iteration", min=0.5, max=2, action="stop"),
    Limit(metric="ended_by_user", relative_to="first_iteration", min=0.7, action="stop"),
    Limit(metric="naturalness_auc", max=0.95),
    Limit(metric="naturalness_auc", relative_to="first_iteration", max=1.25),
    Limit(metric="bits_per_byte", relative_to="first_iteration", max=1.05),
    Limit(metric="bits_per_byte", relative_to="first_iteration", max=1.15, action="stop"),
    Limit(metric="human_share", min=0.1, action="stop"),
)
"""What models that learn from their own output lose first: rare words, length, endings, likeness to people, what they
knew of people's data (Shumailov et al. 2024, 10.1038/s41586-024-07566-y), and how much of the data has to be people's
for it not to happen (Alemohammad et al., arXiv:2307.01850; Gerstgrasser et al., arXiv:2404.01413)."""


class StopRules(Settings):
    """When a loop is over before its last iteration."""

    no_gain_in: str | None = None
    """A score of the report, bits_per_byte or a question set: stop where it gains nothing beyond its 95 % interval."""
    patience: int = Field(1, ge=1)
    """Iterations in a row without a gain."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens sampled in self-play and supervised in training, all iterations together."""
    max_hours: float | None = Field(None, gt=0)
    """Time of all stages together."""


class LoopConfig(Settings):
    """A train-generate loop."""

    renamed: ClassVar[Mapping[str, str]] = {
        "assistant.first": "assistant.model",
        "assistant.start": "assistant.init_from",
        "bench.people": "bench.human",
        "bench.most": "bench.max_conversations",
        "health.figure": "health.metric",
        "health.of": "health.relative_to",
        "health.lowest": "health.min",
        "health.highest": "health.max",
        "health.then": "health.action",
    }

    description: Operational[str] = ""
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
        unknown = [limit.metric for limit in self.health if limit.metric not in {*NAMES, *sets}]
        if unknown:
            raise ValueError(f"health: no metric {unknown[0]!r}; there are {', '.join(sorted({*NAMES, *sets}))}")
        scores = ["bits_per_byte", *sets]
        if self.stop.no_gain_in not in (None, *scores):
            raise ValueError(f"stop.no_gain_in: no score {self.stop.no_gain_in!r}; there are {', '.join(scores)}")
        return self
