"""What a run is before it starts: its plan, the facts it is known by, and whether a folder may hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfplay.chat.conversation import Role, Turn
from selfplay.chat.models import content_hash, locate_model
from selfplay.errors import ConfigError, StoreError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.participants import side_of
from selfplay.seeds import derive_seed
from selfplay.settings import differences, flat
from selfplay.store.records import Plan
from selfplay.store.store import RunStore, is_run, open_run
from simulator.opening import read_openings

DEFAULT_CONVERSATIONS = 32
_OPERATION = {"out", "description", "max_in_flight", "kv_cache_gib", "max_tokens_total", "max_hours"}
_OPERATION_GROUPS = ("simulator_engine", "assistant_engine", "simulator_endpoint", "assistant_endpoint")
_IDENTITY = ("model", "tokenizer", "protocol", "max_context")
"""Of the groups, what changes what is said. Everything else may differ on resuming."""


def plans_of(config: GenerateConfig, start: int = 0) -> Iterator[Plan]:
    """Every conversation of the run from number `start` on, named, seeded and opened. Checked at once, made as read.

    Raises:
        DataError: the openings cannot be read.
        ConfigError: more conversations than openings, or two system prompts.
    """
    openings = read_openings(Path(config.openings)) if config.openings else None
    count = _count(config, openings)
    if config.system is not None and any(turns[0].role == "system" for turns in openings or ()):
        raise ConfigError(f"{config.openings}: has system turns, and --system is given too; use one of them")
    system = () if config.system is None else (Turn("system", config.system, "fixed"),)
    return (_plan(config, openings, system, number) for number in range(start, count))


def count_of(config: GenerateConfig) -> int:
    """How many conversations the run has.

    Raises:
        DataError, ConfigError: see `plans_of`.
    """
    return _count(config, read_openings(Path(config.openings)) if config.openings else None)


def _count(config: GenerateConfig, openings: list[tuple[Turn, ...]] | None) -> int:
    available = len(openings) * config.per_opening if openings else None
    count = config.conversations or available or DEFAULT_CONVERSATIONS
    if available is not None and count > available:
        raise ConfigError(
            f"{count} conversations asked for, but {config.openings} × per_opening {config.per_opening} gives "
            f"{available}; raise per_opening or lower conversations"
        )
    return count


def _plan(
    config: GenerateConfig, openings: list[tuple[Turn, ...]] | None, system: tuple[Turn, ...], number: int
) -> Plan:
    name = f"c{number:06d}"
    given = openings[number // config.per_opening] if openings else ()
    return Plan(number, name, derive_seed(config.seed, name), (*system, *given))


def settled(config: GenerateConfig, *, resume: bool, append: bool) -> GenerateConfig:
    """The config with its number of conversations: asked for, or what the run in the folder has, or grown by it.

    Raises:
        ConfigError: nothing says by how many conversations to grow.
        StoreError: no run to resume or append to.
    """
    if not (resume or append):
        return config.model_copy(update={"conversations": count_of(config)})
    folder = Path(str(config.out))
    if not is_run(folder):
        raise StoreError(f"{folder}: no run to go on with; start it without --resume or --append")
    if append and config.conversations is None:
        raise ConfigError("--append needs -n, the number of conversations to add")
    with open_run(folder) as run:
        planned, _ = run.counts()
    asked = config.conversations or 0
    return config.model_copy(update={"conversations": planned + asked if append else asked or planned})


def facts_of(config: GenerateConfig) -> dict[str, Any]:
    """Settings, models (path and content hash, or URL) and the text of the openings: what makes a run this run."""
    models = {}
    for kind, side in (("simulator", side_of(config, "user")), ("assistant", side_of(config, "assistant"))):
        if side.folder is not None:
            models[kind] = {"path": str(side.folder), "content_hash": content_hash(side.folder)}
        else:
            tokenizer = config.simulator_endpoint.tokenizer if side.role == "user" else None
            hashed = content_hash(locate_model(tokenizer, "simulator")) if tokenizer else ""
            models[kind] = {"path": str(side.url), "content_hash": hashed}
    facts = {"config": config.model_dump(mode="json"), "models": models, "version": version("selfplay")}
    if config.openings:
        facts["openings"] = blake2b(Path(config.openings).read_bytes(), digest_size=16).hexdigest()
    return facts


def check_folder(folder: Path, facts: dict[str, Any], *, resume: bool, append: bool = False) -> None:
    """Refuse to mix two runs in one folder.

    Raises:
        StoreError: another run is there (the keys that differ are listed).
    """
    if not is_run(folder):
        return
    with open_run(folder) as run:
        changed = changed_keys(run.facts(), facts)
    if append:
        changed = [change for change in changed if not change.startswith("conversations:")]
    if changed:
        raise StoreError(
            f"{folder}: holds a run made with other settings: {'; '.join(changed)}. "
            "Use the same settings, or choose another --out"
        )
    if not (resume or append):
        raise StoreError(f"{folder}: already holds this run; finish it with --resume, grow it with --append -n")


def check_served(store: RunStore, served: Mapping[Role, str]) -> None:
    """Write down what the servers call the models they serve, and refuse to go on with others.

    Raises:
        StoreError: a server has another model than when the run began.
    """
    known = store.facts().get("served")
    if known is None:
        store.append({"served": served}, [])
    elif known != served:
        raise StoreError(f"{store.folder}: was made with the served models {known}, now they are {dict(served)}")


def changed_keys(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The settings, models and openings that differ, as `key: stored → asked`."""
    return differences(_compared(stored), _compared(asked))


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run this run: models and openings by what they hold, wherever they lie.

    Settings that an older version did not have count at their defaults.
    """
    try:
        config = GenerateConfig.model_validate(facts["config"]).model_dump(mode="json")
    except ValidationError:
        config = facts["config"]
    weights = {f"{kind} weights": model["content_hash"][:12] for kind, model in facts["models"].items()}
    told = {kind for kind, model in facts["models"].items() if model["content_hash"]} | {"openings"}
    settings = {key: value for key, value in flat(config).items() if not _is_operation(key) and key not in told}
    return {**settings, **weights, "text of openings": facts.get("openings")}


def prices_of(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What a side's tokens cost, by side: money per million prompt and sampled tokens."""
    groups = (("user", "simulator_endpoint"), ("assistant", "assistant_endpoint"))
    found = {role: config.get(group, {}) for role, group in groups}
    return {role: (group.get("input_price", 0.0), group.get("output_price", 0.0)) for role, group in found.items()}


def _is_operation(key: str) -> bool:
    group, _, name = key.partition(".")
    return key in _OPERATION or (group in _OPERATION_GROUPS and name not in _IDENTITY)
