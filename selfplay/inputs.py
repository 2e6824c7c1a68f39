"""What the stages of a loop are made from, by content; and the sample where human data is not at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from selfplay.curating import Sources
from selfplay.data.catalogue import catalogue, locate
from selfplay.data.cleaning.duplicates import digest
from selfplay.errors import DataError
from selfplay.loop.stages import LoopConfig

Say = Callable[[str], None]
SAMPLE = ("sample",)


def with_data(config: LoopConfig, begun: bool, say: Say) -> LoopConfig:
    """The recipe with the packaged sample where its catalogue data is not here; never in a loop that has begun.

    Raises:
        DataError: a name that is none of the catalogue's, or data that a loop began with is not here any more.
    """
    changes: dict[str, Any] = {}
    for part, key in (("assistant", "human"), ("bench", "people")):
        stage = getattr(config, part)
        for name in getattr(stage, key):
            plain = unweighted(name)[0]
            try:
                locate(plain)
            except DataError as error:
                if begun or plain not in catalogue():
                    raise
                say(f"WARNING: {error}; the 120 conversations of the package stand in for it, too few to learn from")
                changes[part] = stage.model_copy(update={key: SAMPLE})
                break
    return config.model_copy(update=changes)


def unweighted(name: str) -> tuple[str, float]:
    """A name without its weight, and the weight."""
    plain, equals, weight = name.rpartition("=")
    return (plain, float(weight)) if equals else (name, 1.0)


def conversations_hash(run: Path) -> str:
    """A hash over what was said in a run."""
    found = blake2b(digest_size=16)
    for conversation in Sources([str(run)]):
        found.update(digest(conversation))
    return found.hexdigest()


def data_hash(names: Sequence[str]) -> str:
    """A hash over the files of datasets; of those on the hub, over their names."""
    sources = [locate(unweighted(name)[0]) for name in names]
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
