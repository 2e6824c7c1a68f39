"""Inputs of the loop's stages, by content; and the packaged sample where human data is not available."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bench.config import JudgeConfig
from selfplay.chat.models import EMBEDDED, content_hash
from selfplay.data.catalogue import catalogue, locate
from selfplay.data.cleaning.duplicates import text_digest
from selfplay.data.sources import Sources
from selfplay.errors import DataError
from selfplay.files import replacing
from selfplay.loop.config import LoopConfig
from selfplay.recipe import flat, with_assigned
from selfplay.store.store import is_run

Say = Callable[[str], None]
SAMPLE, STAND_INS = ("sample",), "stand-ins.json"
HELD_OUT = 0.3
"""Share of the sample that stands in for held-out people; no assistant learns from it."""
_LONGEST = 4096
"""Characters of a path."""


def with_data(config: LoopConfig, folder: Path, begun: bool, say: Say) -> LoopConfig:
    """The recipe with the packaged sample where its catalogue data is not here.

    A loop goes on with what it began with: where the sample stood in is written down in its folder.

    Raises:
        DataError: a name that is none of the catalogue's, or data that a loop began with is not here any more.
    """
    note = folder / STAND_INS
    stand_ins = json.loads(note.read_text(encoding="utf-8")) if note.exists() else []
    changes: dict[str, Any] = {}
    for part, key in (("assistant", "human"), ("bench", "human")):
        stage = getattr(config, part)
        missing = None if part in stand_ins else _missing(getattr(stage, key))
        if missing is not None and begun:
            raise DataError(f"this loop began with data that is not here now; is $SELFPLAY_DATA what it was? {missing}")
        if missing is not None or part in stand_ins:
            why = missing or f"{part}.{key} was not at hand when the loop began"
            say(f"WARNING: {why}; the 120 conversations of the package stand in for it, too few to learn from")
            settings = {"settings": {"data.held_out": HELD_OUT, **stage.settings}} if part == "assistant" else {}
            changes[part] = stage.model_copy(update={key: SAMPLE, **settings})
    if changes and not begun:
        with replacing(note) as partial:
            partial.write_text(json.dumps(list(changes)), encoding="utf-8")
    return config.model_copy(update=changes)


def _missing(names: Sequence[str]) -> DataError | None:
    """Why data of the catalogue is not here.

    Raises:
        DataError: what is not here is not of the catalogue either.
    """
    for name in names:
        plain = split_weight(name)[0]
        try:
            locate(plain)
        except DataError as error:
            if plain not in catalogue():
                raise
            return error
    return None


def split_weight(name: str) -> tuple[str, float]:
    """A name without its weight, and the weight."""
    plain, equals, weight = name.rpartition("=")
    try:
        return (plain, float(weight)) if equals and not Path(name).exists() else (name, 1.0)
    except ValueError:  # a name with = in it
        return name, 1.0


def locate_all(names: Sequence[str]) -> None:
    """Find datasets, weighted or not.

    Raises:
        DataError: one that is nowhere.
    """
    for name in names:
        locate(split_weight(name)[0])


def overlapping(names: Sequence[str], others: Sequence[str]) -> frozenset[str]:
    """Of some datasets those that are among others too, by name or by file."""
    known = {split_weight(name)[0] for name in others}
    files = {path.resolve() for name in known for path in locate(name).paths}
    return frozenset(n for n in names if n in known or files & {path.resolve() for path in locate(n).paths})


def available_locally(names: Sequence[str]) -> tuple[str, ...]:
    """Of some datasets those that lie on this machine, without their weights."""
    found = []
    for name in (split_weight(name)[0] for name in names):
        try:
            found += [name] if locate(name).paths else []
        except DataError:
            continue
    return tuple(found)


def judge_configs(config: LoopConfig) -> list[JudgeConfig]:
    """How each question set is judged; none without a judge."""
    stage = config.bench
    values: dict[str, Any] = {"models": {"iteration": EMBEDDED}, "judge": stage.judge or EMBEDDED}
    configs = [
        with_assigned(JudgeConfig, {**values, "set": name}, flat(stage.settings), "bench.settings")
        for name in stage.sets
    ]
    return configs if stage.judge is not None else []


def question_files(config: LoopConfig) -> list[Path]:
    """The files of the questions that assistants are asked.

    Raises:
        ConfigError, DataError: a set that is not there.
    """
    from bench.assistant.sets import open_set

    opened = [open_set(judge.set, judge.data) for judge in judge_configs(config)]
    return [files.find(files.set.questions, "questions") for files in opened]


def named_hash(name: str) -> str | None:
    """The content behind a setting: of a file, a model folder, a run; None where it is none of them."""
    path = Path(name).expanduser()
    if not name or len(name) > _LONGEST or not path.exists():
        return None
    if path.is_file():
        return files_hash([str(path)])
    if (path / "config.json").exists():
        return content_hash(path)
    return conversations_hash(path) if is_run(path) else None


def conversations_hash(run: Path) -> str:
    """A hash over what was said in a run."""
    found = blake2b(digest_size=16)
    for conversation in Sources([str(run)]):
        found.update(text_digest(conversation))
    return found.hexdigest()


def data_hash(names: Sequence[str]) -> str:
    """A hash over the files of datasets; of those on the hub, over their names."""
    sources = [locate(split_weight(name)[0]) for name in names]
    return files_hash([str(path) for source in sources for path in source.paths] or list(names))


def files_hash(paths: Sequence[str]) -> str:
    """A hash over the content of files; of what is none, over its name."""
    found = blake2b(digest_size=16)
    for path in paths:
        if not Path(path).is_file():
            found.update(path.encode())
            continue
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()
