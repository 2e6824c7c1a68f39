"""Training record (training.json) of a model folder: recipe, data, lineage, steps and losses. This module reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from selfplay.errors import ModelError

RECORD = "training.json"


class TrainedOn(NamedTuple):
    """The data of a training recipe: the dataset names as in the recipe, and the share that was held out."""

    datasets: list[str]
    held_out: float


def read_training_record(folder: Path) -> dict[str, Any]:
    """Read the recipe, data, lineage, steps and losses of a model folder.

    Raises:
        ModelError: there is no record, or it cannot be read.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / RECORD}: cannot be read ({error})") from error
    return record


def trained_on(folder: Path) -> TrainedOn | None:
    """Return what a model was trained on, or None where its folder has no such record."""
    try:
        data = read_training_record(folder)["recipe"]["data"]
        return TrainedOn([str(name) for name in data["datasets"]], float(data["held_out"]))
    except (ModelError, KeyError, TypeError, ValueError):
        return None
