"""The state of a loop: what is done, what runs, and why it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.errors import ConfigError, StoreError
from selfplay.loop.config import LoopConfig
from selfplay.loop.health import LimitCheck, check_limits
from selfplay.loop.ledger import Ledger, StageRecord, is_locked
from selfplay.loop.metrics import IterationMetrics, by_iteration
from selfplay.loop.stages.training import ADAPTERS
from selfplay.recipe import load_recipe
from selfplay.store.store import is_run, open_run

RECIPE, STOPPED = "loop.yaml", "stopped.json"


@dataclass(frozen=True, slots=True)
class LoopState:
    """A loop as it stands."""

    folder: Path
    config: LoopConfig
    entries: list[StageRecord]
    stopped: str | None
    """Why it is over before its last iteration."""
    alarmed: bool
    """Whether that is an alarm."""
    running: bool

    @property
    def found(self) -> dict[int, IterationMetrics]:
        """Figures of finished stages by iteration."""
        return metrics_of_records(self.entries)

    @property
    def checked(self) -> list[LimitCheck]:
        """Limits looked at, by iteration."""
        return check_limits(self.found, self.config.health)


def loop_status(folder: str | Path) -> LoopState:
    """What a loop has done so far, whether it runs, and why it stopped.

    Raises:
        ConfigError: there is none.
        StoreError: what it wrote cannot be read.
    """
    found = Path(folder)
    if not (found / RECIPE).exists():
        raise ConfigError(f"{found}: no loop in it; start one with `selfplay loop run RECIPE --out {found}`")
    config = load_recipe(str(found / RECIPE), LoopConfig)
    entries = [entry for entry in Ledger(found).entries() if entry.iteration <= config.iterations]
    running = is_locked(found)
    for entry in entries:
        if entry.state == "running" and not running:
            entry.state, entry.error = "interrupted", "the process was killed; the same command goes on with it"
    stopped: dict[str, Any] = {}
    if (found / STOPPED).exists():
        try:
            stopped = json.loads((found / STOPPED).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{found / STOPPED}: cannot be read ({error}); the loop's command writes it again"
            ) from error
    return LoopState(found, config, entries, stopped.get("reason"), bool(stopped.get("alarm")), running)


def progress_of(looped: LoopState, entry: StageRecord) -> str | None:
    """How far a stage is that has not ended; None: it cannot be told."""
    output = next(map(Path, entry.outputs.values()), None)
    if entry.state == "done" or output is None:
        return None
    here = looped.folder / f"{entry.iteration:03d}" / output.name
    if entry.stage == "generate" and is_run(here):
        with open_run(here) as run:
            planned, ended = run.counts()
        return f"{ended:,} of {planned:,} conversations"
    folders = (here, here.with_name(here.name + ADAPTERS))
    steps = [int(path.name.partition("-")[2]) for folder in folders for path in folder.glob("checkpoints/checkpoint-*")]
    return f"saved at step {max(steps):,}" if steps else None


def metrics_of_records(entries: Iterable[StageRecord]) -> dict[int, IterationMetrics]:
    """The metrics of finished stages by iteration."""
    return by_iteration((entry.iteration, entry.figures) for entry in entries if entry.state == "done")
