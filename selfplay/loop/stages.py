"""What a loop recipe may say: the stages of an iteration and what each is given. Reading one loads no model code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
