"""The record of a training run, `training.json`: what a model folder says of its making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from selfplay.errors import ModelError

RECORD = "training.json"


class TrainedOn(NamedTuple):
    """The data of a training recipe: dataset names as given, and the share that was held out."""

    datasets: list[str]
    held_out: float


def read_training_record(folder: Path) -> dict[str, Any]:
    """Recipe, data, lineage, steps and losses of a model folder.

    Raises:
        ModelError: there is no record, or it cannot be read.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / RECORD}: cannot be read ({error})") from error
    return record


def trained_on(folder: Path) -> TrainedOn | None:
    """What a model was trained on; None where its folder does not say."""
    try:
        data = read_training_record(folder)["recipe"]["data"]
        return TrainedOn([str(name) for name in data["datasets"]], float(data["held_out"]))
    except (ModelError, KeyError, TypeError, ValueError):
        return None
