"""Shared fixtures: a tokenizer built in memory, and one real engine pair per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfplay.chat.families import family
from selfplay.chat.rendering import ChatRenderer
from selfplay.data.loading import load

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items):
    folder = os.environ.get("SELFPLAY_DATA", "")
    if not Path(folder, "task").is_dir():
        skip = pytest.mark.skip(reason="$SELFPLAY_DATA does not name the data folder")
        for item in items:
            if "data" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def sample():
    return load(["sample"]).conversations


@pytest.fixture(scope="session")
def tiny_tokenizer(sample):
    from selfplay.train.config import ScratchModel
    from selfplay.train.scratch import train_tokenizer

    texts = [turn.content for conversation in sample for turn in conversation.turns]
    return train_tokenizer(texts, ScratchModel(vocab_size=600), family("nano"))


@pytest.fixture(scope="session")
def renderers(tiny_tokenizer):
    """One renderer per variant; None is the family's own template."""
    return {
        role: ChatRenderer(tiny_tokenizer, family("nano").template(role)) for role in (None, "user", "assistant", "all")
    }


@pytest.fixture
def outside_data(monkeypatch, tmp_path):
    """An empty data folder and no way to the hub."""
    monkeypatch.setenv("SELFPLAY_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data; tests that use it carry the marker `data`."""
    return Path(os.environ["SELFPLAY_DATA"])
