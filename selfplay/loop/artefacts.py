"""Artefacts of a loop: which stage produced a path, where it is now, and whether it has a provenance record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from selfplay.chat.models import EMBEDDED, ModelKind, content_hash, locate_model
from selfplay.errors import ModelError
from selfplay.loop.config import Stage
from selfplay.loop.ledger import Ledger, StageRecord
from selfplay.loop.metrics import by_iteration
from selfplay.loop.stages.stage import ASSISTANT, BENCH, KEPT, RUN, SIMULATOR
from selfplay.loop.stages.training import ADAPTERS
from selfplay.loop.status import RECIPE
from selfplay.store.store import DATABASE, is_run

_STAGES: dict[str, Stage] = {
    RUN: "generate",
    KEPT: "curate",
    SIMULATOR: "simulator",
    ASSISTANT: "assistant",
    BENCH: "bench",
}
HASH = 12
"""Characters of a content hash that are shown."""


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Where something stands in a loop."""

    folder: Path
    name: str
    output: Path
    entry: StageRecord

    def facts(self) -> Iterator[tuple[str, str]]:
        """Which stage made it, when, where, with what code, and its figures."""
        entry = self.entry
        yield "made by", f"iteration {entry.iteration}, {entry.stage} ({entry.state})"
        yield "when", f"{datetime.fromtimestamp(entry.started):%Y-%m-%d %H:%M:%S}, {entry.seconds or 0:,.0f} s"
        yield "where", f"{entry.host}, selfplay {entry.code}"
        inputs = entry.identity.get("inputs", {})
        yield "inputs", ", ".join(f"{name} {str(value)[:HASH]}" for name, value in inputs.items())
        figures = by_iteration([(0, entry.figures)])[0]
        yield "figures", ", ".join(f"{name} {value}" for name, value in figures.items())
        yield "settings", str(self.folder / "ledger" / f"{entry.iteration:03d}-{entry.stage}.json")


def find_stage(path: Path) -> StageOutput | None:
    """The stage of a loop whose output something is, or is part of."""
    for folder in path.resolve().parents:
        if not (folder / RECIPE).exists() or not (folder / "ledger").is_dir():
            continue
        inside = path.resolve().relative_to(folder).parts
        if len(inside) < 2 or not inside[0].isdecimal():
            return None
        name = next(
            (own for own in _STAGES if inside[1] == own or inside[1].startswith((f"{own}.", own + ADAPTERS))), None
        )
        if name is None or ".aside-" in inside[1]:
            return None
        entry = Ledger(folder).entry(int(inside[0]), _STAGES[name])
        shown = _shown(folder)
        return None if entry is None else StageOutput(shown, name, shown / inside[0] / name, entry)
    return None


def _shown(folder: Path) -> Path:
    """A folder as a user would write it: from here where it lies below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def locate_artefact(name: str, stage: StageOutput | None) -> Path | None:
    """Where something lies now: in the loop's folder, which may have been moved or copied, or as it was named."""
    path = Path(name)
    *_, iteration, last = ("", "", *path.parts)
    own = stage is not None and iteration.isdecimal() and any(last.startswith(output) for output in _STAGES)
    if stage is not None and own and (moved := stage.folder / iteration / last).exists():
        return moved
    return path if path.exists() else None


def embedded_model(content: str | None) -> Path | None:
    """The embedded model of some content."""
    kinds: tuple[ModelKind, ...] = ("base", "simulator", "assistant")
    folders = [locate_model(EMBEDDED, kind) for kind in kinds] if content else []
    return next((folder for folder in folders if content_hash(folder) == content), None)


def has_record(path: Path) -> bool:
    """Whether it says itself what made it, or is a model."""
    names = ("config.json", "training.json", DATABASE)
    return any((path / name).exists() for name in names) or sibling(path, ".report.json").exists()


def path_kind(path: Path) -> str:
    """What a path is called: model, run, folder or file."""
    if (path / "config.json").exists():
        return "model"
    return "run" if is_run(path) else "folder" if path.is_dir() else "file"


def sibling(path: Path, ending: str) -> Path:
    """The file that is named after another."""
    return path.with_name(path.name + ending)


def read_record(path: Path) -> Mapping[str, Any]:
    """A record in JSON.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    return told
