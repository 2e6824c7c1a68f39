"""Mixtures: datasets by weight, in a shuffled order that depends on names and the seed alone.

weight  how often each conversation of a dataset is in the mixture; of a fraction, that share of the conversations. More
        weight only adds: what 0.3 of a dataset holds is in 0.5 of it too.
split   validation conversations are held out by group before anything is weighted, and each is there once. The rows
        say in which half they are, so training on both files keeps the halves.
Source  the fractions of `dataset_mixer` in huggingface/alignment-handbook and allenai/open-instruct.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np

from selfplay.chat.conversation import Conversation
from selfplay.data.catalogue import catalogue, locate
from selfplay.data.loading import LoadResult, check_split, is_held_out, stream
from selfplay.data.rows import row_of
from selfplay.errors import ConfigError, DataError
from selfplay.files import json_line, write_lines
from selfplay.seeds import derive_seed, unit_interval


@dataclass(slots=True)
class Mixture:
    """Conversations to train on, as often as their weights say, and the held-out ones."""

    train: list[Conversation] = field(default_factory=list)
    held_out: list[Conversation] = field(default_factory=list)
    loaded: LoadResult = field(default_factory=LoadResult)


def load_mixture(sources: Sequence[str], *, held_out: float, seed: int = 0, strict: bool = False) -> Mixture:
    """What a training recipe names: `name` or `name=weight` each, in that order.

    Raises:
        ConfigError: a weight that cannot be used.
        DataError: a dataset is unreadable or kept for scoring, a half comes out empty, or (strict) a row is bad.
    """
    mixture = Mixture()
    for name, weight in parse_weights(sources).items():
        conversations = list(stream(locate(name), mixture.loaded, strict=strict))
        _refuse_holdouts(conversations)
        for conversation in conversations:
            if is_held_out(conversation, held_out):
                mixture.held_out.append(conversation)
            else:
                mixture.train += [conversation] * repeat_count(conversation, weight, seed)
    check_split(mixture.train, mixture.held_out, held_out, mixture.loaded)
    return mixture


def _refuse_holdouts(conversations: Sequence[Conversation]) -> None:
    """Cleaned files remember where their rows came from, so a copy does not get round this."""
    for name in {str(conversation.meta["dataset"]) for conversation in conversations}:
        if (entry := catalogue().get(name)) is not None and entry.holdout:
            raise DataError(f"{name} is kept for scoring and never trained on; leave it out")


@dataclass(slots=True)
class MixResult:
    """How many conversations of each dataset went where."""

    read: Counter[str] = field(default_factory=Counter)
    train: Counter[str] = field(default_factory=Counter)
    validation: Counter[str] = field(default_factory=Counter)
    loaded: LoadResult = field(default_factory=LoadResult)


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """`name` or `name=weight` to weights by name.

    Raises:
        ConfigError: a weight that is no positive number, or a name twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=") if "=" in text else (text, "", "1")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if not name or not 0 < weight < 1000:
            raise ConfigError(f"{text!r}: expected NAME or NAME=WEIGHT with a weight above 0 and below 1000")
        if name in weights:
            raise ConfigError(f"{name} is given twice; give it once, with a weight")
        weights[name] = weight
    return weights


def repeat_count(conversation: Conversation, weight: float, seed: int) -> int:
    """How often a conversation is in the mixture."""
    whole = int(weight)
    dataset = str(conversation.meta["dataset"])
    return whole + (unit_interval("mixture", seed, dataset, conversation.id) < weight - whole)


def mix(sources: Sequence[str], out: str | Path, *, held_out: float = 0.05, seed: int = 0) -> MixResult:
    """Mix datasets, each `name` or `name=weight`, into `train.jsonl` and `validation.jsonl` in a folder.

    Memory: 24 bytes a conversation.

    Raises:
        ConfigError: a weight that cannot be used, or the folder holds a mixture already.
        DataError: a dataset cannot be read or is kept for scoring, or a half comes out empty.
    """
    weights, out = parse_weights(sources), Path(out)
    mixed = MixResult()
    for name in ("train.jsonl", "validation.jsonl"):
        if (out / name).exists():
            raise ConfigError(f"{out} already holds {name}; choose another --out or remove it first")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".mix.", dir=out) as folder,
            _Shuffled(Path(folder) / "train") as train,
            _Shuffled(Path(folder) / "validation") as validation,
        ):
            for name, weight in weights.items():
                loaded = LoadResult()
                for conversation in stream(locate(name), loaded):
                    _refuse_holdouts([conversation])
                    mixed.read[name] += 1
                    held = is_held_out(conversation, held_out)
                    times = 1 if held else repeat_count(conversation, weight, seed)
                    (mixed.validation if held else mixed.train)[name] += times
                    half = "validation" if held else "train"
                    line = json_line(row_of(replace(conversation, meta={**conversation.meta, "half": half})))
                    for copy in range(times):
                        key = derive_seed("order", seed, name, conversation.id, copy)
                        (validation if held else train).add(line, key)
                mixed.loaded.refused.merge(loaded.refused)
                if not mixed.read[name]:
                    raise DataError(f"no usable conversation in {name}: {loaded.refused.summary() or 'no rows'}")
            for half, count in (("train", mixed.train.total()), ("validate", mixed.validation.total())):
                if not count:
                    raise DataError(f"no conversation to {half} on; change --held-out or give more data")
            write_lines(train.lines(), out / "train.jsonl")
            write_lines(validation.lines(), out / "validation.jsonl")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    return mixed


class _Shuffled:
    """Lines on the disk that come back in the order of their keys."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._keys = array("Q")
        self._starts = array("Q")
        self._end = 0

    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def add(self, line: bytes, key: int) -> None:
        self._keys.append(key)
        self._starts.append(self._end)
        self._end += self._file.write(line)

    def lines(self) -> Iterator[bytes]:
        for row in np.argsort(np.frombuffer(self._keys, np.uint64), kind="stable"):
            self._file.seek(self._starts[row])
            yield self._file.readline()
