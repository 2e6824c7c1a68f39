"""The job of a stage, the paths of an iteration, and the identity that tells when a stage is stale.

A stage is stale when its identity differs from the one in the ledger: settings that change what comes out, and inputs
by content. Operational settings are no part of it; files that settings name are inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.chat.models import locate_model
from selfplay.generate.run import Watch, no_events
from selfplay.loop.config import LoopConfig, Stage
from selfplay.loop.inputs import named_hash
from selfplay.recipe import flat

Say = Callable[[str], None]
RUN, KEPT, SIMULATOR, ASSISTANT, BENCH = "run", "kept.jsonl", "simulator", "assistant", "bench"
"""What the stages write into the folder of an iteration."""


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one iteration: what identifies its output, where that is, and the work."""

    iteration: int
    stage: Stage
    identity: dict[str, Any]
    output: Path
    work: Callable[[], dict[str, Any]]
    """Does it, or finishes it; returns its metrics."""
    lasts: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda before: ()
    """Given the identity of an older output: the files in it that stay valid when it is made again."""


@dataclass(frozen=True, slots=True)
class LoopContext:
    """A loop as its stages see it: recipe, folder, and where lines and progress go."""

    config: LoopConfig
    folder: Path
    say: Say
    watch: Watch = lambda: nullcontext(no_events)

    def at(self, iteration: int, name: str) -> Path:
        """The path of an output of an iteration."""
        return self.folder / f"{iteration:03d}" / name

    def simulator(self, iteration: int) -> Path:
        """UserGPT of an iteration: the last one trained, or the one given."""
        trained = self.config.simulator.train
        last = {"never": 0, "first": min(1, iteration), "every": iteration}[trained]
        return self.at(last, SIMULATOR) if last else locate_model(self.config.simulator.model, "simulator")

    def assistant(self, iteration: int) -> Path:
        """The assistant after an iteration; after none, the first one."""
        return self.at(iteration, ASSISTANT) if iteration else locate_model(self.config.assistant.model, "assistant")


def stage_identity(settings: Mapping[str, Any], by_content: Collection[str] = (), **inputs: str) -> dict[str, Any]:
    """Settings that change what comes out, and inputs by content.

    Args:
        settings: nested or under dotted keys; see `selfplay.recipe.identity`.
        by_content: keys of settings that are among the inputs, by content, wherever they lie.
        inputs: content hashes by name.
    """
    kept = {key: value for key, value in flat(settings).items() if key not in by_content}
    named = [str(v) for value in kept.values() for v in (value if isinstance(value, list) else [value])]
    files = {name: content for name in named if (content := named_hash(name)) is not None}
    return {"settings": kept, "inputs": {**inputs, **files}}
