"""Training run from recipe to model folder: it prepares the inputs, then trains in this process or in launched ones.

It knows no side and no training method. It owns the output folder: the lock, the check on resuming, the checkpoints.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.chat.models import EMBEDDED, content_hash, locate_model
from selfplay.errors import ConfigError
from selfplay.files import replacing, try_lock
from selfplay.recipe import differences, identity
from selfplay.train.config import TrainConfig
from selfplay.train.launch.environment import check_environment, several_gpus
from selfplay.train.prepare import prepare_inputs, read_prepared, write_prepared
from selfplay.train.record import read_training_record
from selfplay.train.roles import TrainedSide

CHECKPOINTS = "checkpoints"
_OWNER = "run.json"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The finished model's folder and its held-out loss (nats per supervised token)."""

    out: Path
    steps: int
    eval_loss: float
    supervised_tokens: int


def train(
    config: TrainConfig, side: TrainedSide, *, resume: bool = False, say: Callable[[str], None] = print
) -> TrainResult:
    """Train one side and save the model folder.

    Raises:
        ConfigError: the output folder already holds a model, or an unfinished run with other settings.
        ModelError, DataError, EmptyLossMask: the inputs are unusable; raised before any model is loaded.
        SelfplayError: training failed: the loss is not finite, or memory ran out.
    """
    config = with_base_folder(config)
    out = Path(config.output_dir)
    folder = out / CHECKPOINTS
    if _finished(out):
        raise ConfigError(f"{out} already holds a model; choose another --out or remove it first")
    check_environment(config)
    with _alone(folder):
        _check_owner(folder, config, resume)
        _train(config, side, folder, resume, say)
    shutil.rmtree(folder)
    record = read_training_record(out)
    return TrainResult(out, record["steps"], record["eval_loss"], record["supervised_tokens"])


def _train(config: TrainConfig, side: TrainedSide, folder: Path, resume: bool, say: Callable[[str], None]) -> None:
    """Prepare the inputs, record what the run is, and train."""
    inputs = prepare_inputs(config, side, say)
    owner = {**_identity(config), "data fingerprint": inputs.fingerprint}
    checkpoint = _find_checkpoint(folder, owner) if resume else None
    write_prepared(inputs, folder)
    with replacing(folder / _OWNER) as partial:
        partial.write_text(json.dumps(owner), encoding="utf-8")
    del inputs  # the processes read the rows from disk; this copy would fill memory while they train
    if config.launched or several_gpus():
        from selfplay.train.launch.launch import launch

        launch(config, folder, checkpoint)
    else:
        from selfplay.train.methods.sft import train_process

        train_process(read_prepared(folder), folder, checkpoint, say)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the output folder; the lock ends with the process, however the process ends.

    Raises:
        ConfigError: another process is training into the folder.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / "lock")
    if lock is None:
        raise ConfigError(f"another run is training into {folder.parent}; give this one another --out")
    with lock:
        try:
            yield
        finally:
            if new and not (folder / _OWNER).exists():  # refused before the run began, so nothing is worth keeping
                shutil.rmtree(folder)
                with suppress(OSError):
                    folder.parent.rmdir()


def is_begun(out: Path) -> bool:
    """Whether a folder holds an interrupted run that can be resumed."""
    return (out / CHECKPOINTS / _OWNER).exists()


def _finished(out: Path) -> bool:
    """Whether a folder holds a whole model: the configuration is the last file that `move_in` moves."""
    return any((out / name).exists() for name in ("config.json", "adapter_config.json"))


def _check_owner(folder: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse to start over an unfinished run, to resume where there is none, or to resume one of another recipe.

    Raises:
        ConfigError: the differing settings are listed.
    """
    note = folder / _OWNER
    if not resume:
        if note.exists():
            raise ConfigError(f"{folder} holds an unfinished run; go on with --resume, or remove the folder")
        return
    if not note.exists():
        raise ConfigError(f"{folder} holds no checkpoint; start without --resume")
    stored = json.loads(note.read_text(encoding="utf-8"))
    # The data is not loaded yet, so its stored fingerprint is taken over here; `_find_checkpoint` compares it later.
    fingerprint = {"data fingerprint": stored.get("data fingerprint")}
    _refuse_changes(folder, stored, {**_identity(config), **fingerprint})


def _identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that may not change on resuming; a base is identified by its content, not by its path."""
    settings = identity(config)
    if config.base is not None and Path(config.base).is_dir():
        settings["base"] = content_hash(Path(config.base))
    return settings


def _find_checkpoint(folder: Path, asked: dict[str, Any]) -> str | None:
    """Return the newest whole checkpoint, or None before the first one.

    A checkpoint is whole where its trainer state can be read: that file is written last.

    Raises:
        ConfigError: the settings or the data have changed.
    """
    _refuse_changes(folder, json.loads((folder / _OWNER).read_text(encoding="utf-8")), asked)
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((str(path) for path in checkpoints if _readable(path / "trainer_state.json")), None)


def _readable(file: Path) -> bool:
    """Whether a file holds non-empty JSON."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _refuse_changes(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise a ConfigError that lists the settings that differ."""
    # The same data under other paths is no change.
    same_data = stored.get("data fingerprint") == asked.get("data fingerprint")
    changed = differences(stored, asked, ("data.datasets",) if same_data else ())
    if changed:
        raise ConfigError(f"{folder} belongs to other settings: {'; '.join(changed)}; resume with the same ones")


def with_base_folder(config: TrainConfig) -> TrainConfig:
    """Return the recipe with the base's name resolved to a folder; other names are left for the hub."""
    name = config.base
    if name is None or (name != EMBEDDED and not Path(name).expanduser().exists()):
        return config
    return config.model_copy(update={"base": str(locate_model(name, "base"))})
