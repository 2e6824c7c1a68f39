"""What a run is before it starts: its plan, the facts it is known by, and whether a folder may hold it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Turn
from selfplay.chat.models import content_hash, locate_model
from selfplay.config import GenerateConfig
from selfplay.errors import ConfigError, StoreError
from selfplay.seeds import derive_seed
from selfplay.settings import differences
from selfplay.store.records import Plan
from selfplay.store.store import DATABASE, RunReader
from simulator.opening import read_openings

DEFAULT_CONVERSATIONS = 32
_NOT_COMPARED = ("out", "description", "max_in_flight", "kv_cache_gib")
"""Settings that may differ on resuming: they do not change what is said."""


def plans_of(config: GenerateConfig) -> list[Plan]:
    """Every conversation of the run, named, seeded and opened.

    Raises:
        DataError: the openings cannot be read.
        ConfigError: more conversations than openings, or two system prompts.
    """
    openings = read_openings(Path(config.openings)) if config.openings else None
    available = len(openings) * config.per_opening if openings else None
    count = config.conversations or available or DEFAULT_CONVERSATIONS
    if available is not None and count > available:
        raise ConfigError(
            f"{count} conversations asked for, but {config.openings} × per_opening {config.per_opening} gives "
            f"{available}; raise per_opening or lower conversations"
        )
    system = () if config.system is None else (Turn("system", config.system, "fixed"),)
    names = [f"c{number:06d}" for number in range(count)]
    return [
        Plan(number, name, derive_seed(config.seed, name), _opening(config, openings, system, number))
        for number, name in enumerate(names)
    ]


def _opening(
    config: GenerateConfig, openings: list[tuple[Turn, ...]] | None, system: tuple[Turn, ...], number: int
) -> tuple[Turn, ...]:
    given = openings[number // config.per_opening] if openings else ()
    if system and given and given[0].role == "system":
        raise ConfigError(f"{config.openings}: has system turns, and --system is given too; use one of them")
    return (*system, *given)


def facts_of(config: GenerateConfig) -> dict[str, Any]:
    """Settings, models (path and content hash) and the text of the openings: what makes a run this run."""
    models = {
        kind: {"path": str(folder), "content_hash": content_hash(folder)}
        for kind, folder in (
            ("simulator", locate_model(config.simulator, "simulator")),
            ("assistant", locate_model(config.assistant, "assistant")),
        )
    }
    facts = {"config": config.model_dump(mode="json"), "models": models, "version": version("selfplay")}
    if config.openings:
        facts["openings"] = blake2b(Path(config.openings).read_bytes(), digest_size=16).hexdigest()
    return facts


def check_folder(folder: Path, facts: dict[str, Any], resume: bool) -> None:
    """Refuse to mix two runs in one folder.

    Raises:
        StoreError: another run is there (the keys that differ are listed), or none where one is to be resumed.
    """
    if not (folder / DATABASE).exists():
        if resume:
            raise StoreError(f"{folder}: no run to resume; start it without --resume")
        return
    reader = RunReader(folder)
    changed = changed_keys(reader.facts(), facts)
    reader.close()
    if changed:
        raise StoreError(
            f"{folder}: holds a run made with other settings: {'; '.join(changed)}. "
            "Use the same settings with --resume, or choose another --out"
        )
    if not resume:
        raise StoreError(f"{folder}: already holds this run; finish it with --resume or choose another --out")


def changed_keys(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The settings, models and openings that differ, as `key: stored → asked`."""
    return differences(_compared(stored), _compared(asked), _NOT_COMPARED)


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    weights = {f"{kind} weights": model["content_hash"][:12] for kind, model in facts["models"].items()}
    return {**facts["config"], **weights, "text of openings": facts.get("openings")}
