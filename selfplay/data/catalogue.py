"""Datasets by name: what they are, where they lie, how their rows read, under which licence.

The entries are in `datasets/*.yaml`. A name is looked for in the folder `$SELFPLAY_DATA`, then on the hub; a path is
taken as it is, and `organisation/name` is a hub dataset that has no entry. `sample` is the small set shipped with the
package, so that first steps and tests need neither.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from selfplay.data.hub import HubDataset
from selfplay.data.raw_rows import Batch
from selfplay.data.reading import check_file, read_batches
from selfplay.data.runs import SELF_PLAY, run_batches
from selfplay.errors import DataError
from selfplay.store.store import is_run

SAMPLE = "sample"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Dataset(BaseModel):
    """One entry, with the labels of the Open-ChatGPT collection."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    title: str
    hub: str | None = None
    """`organisation/name` on the hub."""
    hub_files: tuple[str, ...] = ()
    """Files in it that hold the rows as `format` reads them; none: its default configuration is streamed."""
    hub_config: str | None = None
    hub_split: str = "train"
    file: str | None = None
    """Relative to `$SELFPLAY_DATA`."""
    format: str
    language: Literal["EN", "CN", "EN/CN", "ML"]
    """EN English, CN Chinese, ML several."""
    task: Literal["MT", "TS", "MT/TS"]
    """MT many tasks, TS one task."""
    generation: Literal["HG", "SI", "MIX", "COL"]
    """HG by people, SI by models (self-instruct), MIX by both, COL a collection of others."""
    size: int | None = None
    """Rows as published."""
    licence: str
    source: str
    holdout: bool = False
    """Kept for scoring, never trained on."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: files, a hub dataset that is streamed, or a run. `format` None: told from the rows."""

    name: str
    format: str | None = None
    paths: tuple[Path, ...] = ()
    hub: HubDataset | None = None
    run: Path | None = None
    """Folder of a self-play run."""

    def batches(self) -> Iterator[Batch]:
        """All rows, in order.

        Raises:
            DataError: a file or the hub cannot be read.
        """
        for path in self.paths:
            yield from read_batches(path)
        if self.hub is not None:
            yield from self.hub.batches()
        if self.run is not None:
            yield from run_batches(self.run)


@cache
def catalogue() -> dict[str, Dataset]:
    """All entries by name, in the order of the files."""
    folder = files("selfplay.data").joinpath("datasets")
    adapter = TypeAdapter(list[Dataset])
    found: dict[str, Dataset] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        for entry in adapter.validate_python(yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)):
            assert entry.name not in found, f"two entries named {entry.name}"
            found[entry.name] = entry
    return found


def datasets(language: str | None = None, generation: str | None = None, text: str = "") -> list[Dataset]:
    """The catalogue, or the part of it with these labels and this text in its name or title."""
    return [
        dataset
        for dataset in catalogue().values()
        if language in (None, dataset.language)
        and generation in (None, dataset.generation)
        and text.lower() in f"{dataset.name} {dataset.title}".lower()
    ]


def dataset_named(name: str) -> Dataset:
    """An entry of the catalogue.

    Raises:
        DataError: no such entry; the message names the nearest ones.
    """
    if name not in catalogue():
        raise DataError(
            f"no dataset named {name!r} in the catalogue{_nearest(name)}; list them with `selfplay data list`"
        )
    return catalogue()[name]


def locate(name: str) -> Source:
    """Where a dataset is.

    Args:
        name: `sample`, a catalogue name, a file, a run folder, or `organisation/name` on the hub.

    Raises:
        DataError: not found anywhere; the message says where was looked.
    """
    if name == SAMPLE:
        sample = Path(str(files("selfplay.data").joinpath("samples/nano_conversations.jsonl")))
        return Source(name, "messages", (sample,))
    if name in catalogue():
        return _entry_source(catalogue()[name])
    path = Path(name).expanduser()
    if _exists(path):
        if is_run(path):
            return Source(SELF_PLAY, "messages", run=path)
        check_file(path)
        return _file_source(name, path)
    if _HUB_NAME.fullmatch(name) and not path.suffix and not path.parent.exists():
        return Source(name, None, hub=HubDataset(name))
    raise DataError(
        f"no file and no dataset named {name!r}{_nearest(name)}; known names: `selfplay data list`, or 'sample'"
    )


def local_file(entry: Dataset) -> Path | None:
    """The entry's file in `$SELFPLAY_DATA`, if it is there."""
    folder = os.environ.get("SELFPLAY_DATA")
    path = Path(folder) / entry.file if folder and entry.file else None
    return path if path is not None and path.exists() else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than a name can be
        return False


def _file_source(name: str, path: Path) -> Source:
    """A file; one that an entry of the catalogue names is that dataset, whatever path it was given by."""
    for entry in catalogue().values():
        if (known := local_file(entry)) is not None and known.samefile(path):
            return Source(entry.name, entry.format, (path,))
    return Source(name, None, (path,))


def _entry_source(entry: Dataset) -> Source:
    if (path := local_file(entry)) is not None:
        return Source(entry.name, entry.format, (path,))
    if entry.hub is not None:
        hub = HubDataset(entry.hub, entry.hub_files, entry.hub_config, entry.hub_split)
        return Source(entry.name, entry.format, hub=hub)
    looked = f"expected {entry.file} in the folder $SELFPLAY_DATA ({os.environ.get('SELFPLAY_DATA', 'not set')}); "
    raise DataError(
        f"dataset {entry.name!r} not found: {looked if entry.file else ''}it is not on the hub; get it from "
        f"{entry.source} ({entry.licence}) and give the path of its file"
    )


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, catalogue(), 3, 0.5)
    return f" (did you mean {', '.join(near)}?)" if near else ""
