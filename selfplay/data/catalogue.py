"""Datasets by name: where they lie, how their rows read, under which licence.

A name is looked for in the folder `$SELFPLAY_DATA`, then on the hub where its rows are published as they are read
here; a path is taken as it is. `sample` is the small set shipped with the package, so that first steps and tests need
neither.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from selfplay.errors import DataError


@dataclass(frozen=True, slots=True)
class Dataset:
    """One catalogue entry. `file` is relative to `$SELFPLAY_DATA`; `hub` names (repository, file) on the hub."""

    name: str
    file: str
    format: str
    licence: str
    source: str
    hub: tuple[str, str] | None = None


CATALOGUE = {
    entry.name: entry
    for entry in (
        Dataset(
            "sgd_train", "task/sgd_train.jsonl.gz", "sgd", "CC BY-SA 4.0",
            "google-research-datasets/dstc8-schema-guided-dialogue, train",
        ),
        Dataset(
            "sgd_dev", "task/sgd_dev.jsonl.gz", "sgd", "CC BY-SA 4.0",
            "google-research-datasets/dstc8-schema-guided-dialogue, dev",
        ),
        Dataset(
            "sgd_test", "task/sgd_test.jsonl.gz", "sgd", "CC BY-SA 4.0",
            "google-research-datasets/dstc8-schema-guided-dialogue, test",
        ),
        Dataset(
            "taskmaster4_coffee", "task/taskmaster4_coffee.jsonl.gz", "taskmaster", "CC BY 4.0",
            "google-research-datasets/Taskmaster, TM-4-2024",
        ),
        Dataset(
            "camrest676_train", "task/camrest676_train.json.gz", "camrest", "CC BY 4.0",
            "ConvLab/ConvLab-3, CamRest676 train",
        ),
        Dataset(
            "hh_rlhf_helpful_rejection_sampled", "chat/hh_rlhf_helpful_rejection_sampled_test.jsonl.gz", "hh_rlhf",
            "MIT", "anthropics/hh-rlhf, helpful-rejection-sampled test",
            ("Anthropic/hh-rlhf", "helpful-rejection-sampled/test.jsonl.gz"),
        ),
        Dataset(
            "oasst_en_100_trees", "chat/oasst_en_100_trees.jsonl.gz", "oasst", "Apache-2.0",
            "LAION-AI/Open-Assistant, en_100_tree.jsonl",
        ),
        Dataset(
            "sharegpt_1k", "chat/sharegpt_1k.jsonl.gz", "sharegpt", "CC0-1.0",
            "ShareGPT90K, a sample of 1,000 conversations",
        ),
    )
}  # fmt: skip


def locate(name: str) -> tuple[Path, str | None]:
    """The file of a dataset and its format (None: recognise it from the rows).

    Args:
        name: `sample`, a catalogue name, or a path.

    Raises:
        DataError: not found anywhere; the message lists where was looked.
    """
    if name == "sample":
        return Path(str(files("selfplay.data").joinpath("samples/nano_conversations.jsonl"))), "messages"
    if name not in CATALOGUE:
        path = Path(name).expanduser()
        if path.exists():
            return path, None
        raise DataError(f"no file and no dataset named {name!r}; known names: sample, {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    folder = os.environ.get("SELFPLAY_DATA")
    if folder and (path := Path(folder) / entry.file).exists():
        return path, entry.format
    if entry.hub is not None:
        return _download(entry, *entry.hub), entry.format
    raise DataError(
        f"dataset {name!r} not found: expected {entry.file} in the folder $SELFPLAY_DATA "
        f"({folder or 'not set'}); get it from {entry.source} ({entry.licence})"
    )


def _download(entry: Dataset, repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"dataset {entry.name!r} is neither in $SELFPLAY_DATA ({entry.file}) nor could {repository} be read from "
            f"the hub ({type(error).__name__}); set SELFPLAY_DATA to a folder that holds it"
        ) from error
