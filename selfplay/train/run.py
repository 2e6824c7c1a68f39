"""One training run from recipe to model folder: prepared here, trained in this process or in launched ones."""

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
    """Where the model lies and how it did on held-out conversations (nats per supervised token)."""

    out: Path
    steps: int
    eval_loss: float
    supervised_tokens: int


def train(
    config: TrainConfig, side: TrainedSide, *, resume: bool = False, say: Callable[[str], None] = print
) -> TrainResult:
    """Train one side and save the model folder.

    Raises:
        ConfigError: the output folder already holds a model, or what was started there is something else.
        ModelError, DataError, EmptyLossMask: found before any model is loaded.
        SelfplayError: training broke: a loss that is no number, or no memory left.
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
    gathered = prepare_inputs(config, side, say)
    known = {**_identity(config), "data fingerprint": gathered.fingerprint}
    checkpoint = _find_checkpoint(folder, known) if resume else None
    write_prepared(gathered, folder)
    with replacing(folder / _OWNER) as partial:
        partial.write_text(json.dumps(known), encoding="utf-8")
    del gathered
    if config.launched or several_gpus():
        from selfplay.train.launch.launch import launch

        launch(config, folder, checkpoint)
    else:
        from selfplay.train.methods.sft import train_process

        train_process(read_prepared(folder), folder, checkpoint, say)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the output folder; the hold ends with the process, however it ends.

    Raises:
        ConfigError: another process trains into it.
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
            if new and not (folder / _OWNER).exists():  # refused before anything was begun
                shutil.rmtree(folder)
                with suppress(OSError):
                    folder.parent.rmdir()


def is_begun(out: Path) -> bool:
    """Whether an interrupted run can be resumed in a folder."""
    return (out / CHECKPOINTS / _OWNER).exists()


def _finished(out: Path) -> bool:
    return any((out / name).exists() for name in ("config.json", "adapter_config.json"))


def _check_owner(folder: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse to start over an unfinished run, or to resume none, or one of another recipe.

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
    fingerprint = {"data fingerprint": stored.get("data fingerprint")}
    _refuse_changes(folder, stored, {**_identity(config), **fingerprint})


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What may not change on resuming; a base is known by its content, wherever it lies."""
    settings = identity(config)
    if config.base is not None and Path(config.base).is_dir():
        settings["base"] = content_hash(Path(config.base))
    return settings


def _find_checkpoint(folder: Path, asked: dict[str, Any]) -> str | None:
    """The newest whole checkpoint, None before the first one; the state is what is written last.

    Raises:
        ConfigError: the data is no longer what it was.
    """
    _refuse_changes(folder, json.loads((folder / _OWNER).read_text(encoding="utf-8")), asked)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((str(path) for path in found if _readable(path / "trainer_state.json")), None)


def _readable(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _refuse_changes(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    same_data = stored.get("data fingerprint") == asked.get("data fingerprint")
    changed = differences(stored, asked, ("data.datasets",) if same_data else ())
    if changed:
        raise ConfigError(f"{folder} belongs to other settings: {'; '.join(changed)}; resume with the same ones")


def with_base_folder(config: TrainConfig) -> TrainConfig:
    """The recipe with the folder of its base in place of a name; what is no folder is left as a name on the hub."""
    name = config.base
    if name is None or (name != EMBEDDED and not Path(name).expanduser().exists()):
        return config
    return config.model_copy(update={"base": str(locate_model(name, "base"))})
