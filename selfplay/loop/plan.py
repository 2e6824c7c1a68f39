"""The jobs of a loop: a recipe and a folder in, one job for each stage of each iteration out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfplay.generate.run import Watch
from selfplay.loop.config import LoopConfig, Stage
from selfplay.loop.inputs import locate_all, question_files
from selfplay.loop.stages.bench import bench_job
from selfplay.loop.stages.curate import curate_job, curation_recipe
from selfplay.loop.stages.generate import generate_job, self_play
from selfplay.loop.stages.stage import Job, LoopContext, Say
from selfplay.loop.stages.training import assistant_job, assistant_training, simulator_job, simulator_training
from selfplay.train.run import with_base_folder

STAGE_JOBS: dict[Stage, Callable[[LoopContext, int], Job | None]] = {
    "simulator": simulator_job,
    "generate": generate_job,
    "curate": curate_job,
    "assistant": assistant_job,
    "bench": bench_job,
}
"""What makes the job of a stage; a new stage is a file in `stages/` and a line here."""


class LoopPlan:
    """The jobs of one recipe in one folder."""

    def __init__(self, config: LoopConfig, folder: Path, say: Say, watch: Watch | None = None) -> None:
        self.context = LoopContext(config, folder, say, watch) if watch else LoopContext(config, folder, say)

    def job(self, iteration: int, stage: Stage) -> Job | None:
        """A stage's job; None where an iteration has none. Iteration 0 is the bench of the first assistant."""
        if not iteration and stage != "bench":
            return None
        return STAGE_JOBS[stage](self.context, iteration)

    def check(self) -> None:
        """Read every recipe and find every model before anything is begun: nothing is worse than a typo after a week.

        Raises:
            SelfplayError: a recipe, setting, model, dataset or question set that cannot be used.
        """
        config = self.context.config
        if config.simulator.train != "never":
            locate_all(with_base_folder(simulator_training(self.context, 1)).data.datasets)
        self_play(self.context, 1)
        curation_recipe(self.context)
        assistant_training(self.context, 1)
        locate_all((*config.assistant.human, *config.bench.human))
        question_files(config)
