"""The identity of a run: the facts stored with it, and what a resumed run refuses.

A run may be resumed, or grown, by the same settings only. Models and openings are compared by content, wherever they
lie; operational settings (`selfplay.recipe.Operational`) may differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfplay.chat.conversation import Role
from selfplay.chat.models import RoleModel
from selfplay.errors import StoreError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.participants import SIDES
from selfplay.generate.plan import Openings
from selfplay.recipe import differences, flat, identity
from selfplay.store.store import RunStore, is_run, open_run

_OPENINGS = "simulator.openings"


def run_facts(config: GenerateConfig, sides: Sequence[RoleModel], openings: Openings) -> dict[str, Any]:
    """Settings, models (path and content hash, or URL) and the text of the openings: what makes a run this run."""
    facts: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "models": {SIDES[side.role]: side.provenance() for side in sides},
        "version": version("selfplay"),
    }
    if openings:
        text = json.dumps([[(turn.role, turn.content) for turn in turns] for turns in openings])
        facts["openings"] = blake2b(text.encode(), digest_size=16).hexdigest()
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


def check_served_models(store: RunStore, served: Mapping[Role, str]) -> None:
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
    """What makes a run this run. Settings that an older version did not have count at their defaults."""
    try:
        settings = identity(GenerateConfig.model_validate(facts["config"]))
    except ValidationError:
        settings = flat(facts["config"])
    by_content = {f"{side}.model" for side, model in facts["models"].items() if model["content_hash"]} | {_OPENINGS}
    weights = {f"{side} weights": model["content_hash"][:12] for side, model in facts["models"].items()}
    kept = {key: value for key, value in settings.items() if key not in by_content}
    return {**kept, **weights, "text of openings": facts.get("openings")}
