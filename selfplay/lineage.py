"""`selfplay lineage`: what made a model, a run, a conversation, a curated file or a score, back to where it began.

Every artefact carries its own record (`training.json`, a run's facts, `.report.json`); in a loop's folder it also has a
stage of the ledger. The chain is followed by paths, and models are held against the hash they had then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from selfplay.chat.models import EMBEDDED, ModelKind, content_hash, locate_model
from selfplay.errors import DataError, ModelError, StoreError
from selfplay.generation import open_run
from selfplay.inputs import unweighted
from selfplay.jobs import ASSISTANT, BENCH, KEPT, RUN, SIMULATOR
from selfplay.loop.figures import by_iteration
from selfplay.loop.ledger import Entry, Ledger
from selfplay.loop.stages import Stage
from selfplay.looping import RECIPE
from selfplay.measuring import EXAMPLES
from selfplay.store.store import DATABASE
from selfplay.store.verdicts import verdicts_on
from selfplay.working import ADAPTERS

_STAGES: dict[str, Stage] = {
    RUN: "generate",
    KEPT: "curate",
    SIMULATOR: "simulator",
    ASSISTANT: "assistant",
    BENCH: "bench",
}
_HASH = 12
"""Characters of a content hash that are shown."""


@dataclass(slots=True)
class Made:
    """Something, how it was made, and what from."""

    what: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    parents: list[Made] = field(default_factory=list)


def lineage(path: str | Path, id: str | None = None) -> Made:
    """What made something.

    Args:
        path: model folder, run folder, curated file, or anything in a loop's folder.
        id: a conversation of the run or curated file.

    Raises:
        SelfplayError: nothing there whose making is known, or no such conversation.
    """
    found = Path(path)
    if (found / RECIPE).exists() and (found / "ledger").is_dir():
        raise DataError(
            f"{found} is a loop; name something in it, such as {found}/001/{ASSISTANT} or {found}/001/{BENCH}"
        )
    if not found.exists():
        raise DataError(f"{found}: no such file or folder; name a model, a run, a curated file or a loop's score")
    made = _Follower().follow(found)
    return made if id is None else _conversation(found, id, made)


class _Follower:
    """Follows records; what was told already is not told again."""

    def __init__(self) -> None:
        self._told: set[Path] = set()

    def follow(self, path: Path) -> Made:
        """What made a file or folder, by its own record and by the ledger it stands in."""
        stage = _stage_of(path)
        root = path if stage is None else stage.output
        if root.resolve() in self._told:
            return Made(f"{_kind(root)} {root}", [("see", "above")])
        self._told.add(root.resolve())
        made = self._by_record(root, stage)
        if stage is not None:
            made.facts = [*stage.facts(), *made.facts]
        elif not made.facts and not made.parents:
            raise DataError(
                f"{path}: nothing says what made it; a model has training.json, a run {DATABASE}, a curated file "
                "FILE.report.json, and a loop's folder its ledger"
            )
        return made

    def _by_record(self, root: Path, stage: _Stage | None) -> Made:
        if (root / "config.json").exists() or (root / "training.json").exists():
            return self._model(root, stage)
        if (root / DATABASE).exists():
            return self._run(root, stage)
        if root.is_file() and _beside(root, ".report.json").exists():
            return self._curated(root, stage)
        if stage is not None and stage.name == BENCH:
            return self._scores(root, stage)
        return Made(f"{_kind(root)} {root}")

    def _model(self, root: Path, stage: _Stage | None) -> Made:
        """A trained folder: its recipe, base and data. One that says nothing is where the chain begins."""
        made = Made(f"model {root}", [("content", content_hash(root)[:_HASH])])
        if not (root / "training.json").exists():
            return made
        record = _json(root / "training.json")
        recipe = record["recipe"]
        made.facts += [
            ("role", str(recipe["role"])),
            ("recipe", str(recipe.get("description") or "")),
            ("seed", str(recipe["optim"]["seed"])),
            ("steps", f"{record['steps']:,} at {recipe['optim']['learning_rate']:g}"),
            ("data", f"{record['conversations']:,} conversations, fingerprint {record['data_fingerprint']}"),
        ]
        known = record["lineage"][0] if record.get("lineage") else {}
        if recipe.get("base"):
            made.parents.append(self._parent(str(recipe["base"]), stage, known.get("content_hash")))
        made.parents += self._data(recipe["data"]["datasets"], stage)
        return made

    def _data(self, names: Sequence[str], stage: _Stage | None) -> list[Made]:
        """Files with a history by themselves; what is read as it is, in one line."""
        weighted = [(name, *unweighted(name)) for name in names]
        placed = [(name, path) for name, plain, _ in weighted if (path := _placed(plain, stage)) and _has_record(path)]
        alike: dict[float, list[str]] = {}
        for name, own, weight in weighted:
            if name not in dict(placed):
                alike.setdefault(weight, []).append(own)
        datasets = [Made(f"datasets {', '.join(names)}" + (f", each × {weight:g}" if weight != 1 else ""))
                    for weight, names in alike.items()]  # fmt: skip
        return [*datasets, *(self._parent(name, stage) for name, _ in placed)]

    def _run(self, root: Path, stage: _Stage | None) -> Made:
        """A run: settings, seed, both models by the content they had."""
        with closing(open_run(root)) as run:
            facts, (planned, ended) = run.facts(), run.counts()
        config = facts.get("config", {})
        sampling = {side: config.get(f"{side}_sampling", {}) for side in ("user", "assistant")}
        told = "; ".join(
            f"{side} T {one.get('temperature')}, top-p {one.get('top_p')}" for side, one in sampling.items()
        )
        made = Made(f"run {root}", [
            ("conversations", f"{ended:,} of {planned:,} ended"),
            ("seed", str(config.get("seed"))),
            ("openings", str(config.get("openings") or "free")),
            ("sampling", told),
            ("version", str(facts.get("version"))),
        ])  # fmt: skip
        for kind, model in facts.get("models", {}).items():
            parent = self._parent(str(model["path"]), stage, model.get("content_hash"))
            parent.facts.insert(0, ("as", kind))
            made.parents.append(parent)
        return made

    def _curated(self, root: Path, stage: _Stage | None) -> Made:
        report = _json(_beside(root, ".report.json"))
        steps = {name: step["rows_before"] - step["rows_after"] for name, step in report["steps"].items()}
        left_out = ", ".join(f"{name} {count:,}" for name, count in steps.items() if count) or "none"
        facts = [("kept", f"{report['kept']:,} of {report['conversations']:,}"), ("left out", left_out)]
        return Made(f"curated {root}", facts, [self._parent(name, stage) for name in report["sources"]])

    def _scores(self, root: Path, stage: _Stage) -> Made:
        """Scores of a loop: the assistant and the run they are of, and the people beside them."""
        folder, number = stage.folder, stage.entry.iteration
        parents = [folder / f"{number:03d}" / (ASSISTANT if number else "")] if number else []
        parents += [folder / f"{number:03d}" / RUN] if number else []
        if not number and (root / EXAMPLES / DATABASE).exists():
            parents.append(root / EXAMPLES)
        people = stage.entry.made_from.get("settings", {}).get("people", [])
        made = Made(f"scores {root}", [("people", ", ".join(map(str, people)))])
        made.parents = [self._run(path, stage) if path.name == EXAMPLES else self.follow(path) for path in parents]
        return made

    def _parent(self, name: str, stage: _Stage | None, then: str | None = None) -> Made:
        """What something was made from: a folder or file with a history, a dataset, or what is not here any more."""
        plain, weight = (name, 1.0) if _placed(name, stage) else unweighted(name)
        path = _placed(plain, stage) or _embedded(then)
        told = [("weight", f"{weight:g}")] if weight != 1 else []
        if path is None:
            facts = [*told, *([("content then", then[:_HASH])] if then else [])]
            return Made(f"{plain}, which is not here", facts)
        if not _has_record(path):
            return Made(f"{_kind(path)} {path}", told)
        made = self.follow(path)
        if then and path.is_dir() and (path / "config.json").exists() and content_hash(path) != then:
            told.append(("CHANGED", f"its content was {then[:_HASH]} then"))
        made.facts += told
        return made


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where something stands in a loop."""

    folder: Path
    name: str
    output: Path
    entry: Entry

    def facts(self) -> Iterator[tuple[str, str]]:
        """Which stage made it, when, where, with what code, and its figures."""
        entry = self.entry
        yield "made by", f"iteration {entry.iteration}, {entry.stage} ({entry.state})"
        yield "when", f"{datetime.fromtimestamp(entry.started):%Y-%m-%d %H:%M:%S}, {entry.seconds or 0:,.0f} s"
        yield "where", f"{entry.host}, selfplay {entry.code}"
        inputs = entry.made_from.get("inputs", {})
        yield "inputs", ", ".join(f"{name} {str(value)[:_HASH]}" for name, value in inputs.items())
        figures = by_iteration([(0, entry.figures)])[0]
        yield "figures", ", ".join(f"{name} {value}" for name, value in figures.items())
        yield "settings", str(self.folder / "ledger" / f"{entry.iteration:03d}-{entry.stage}.json")


def _stage_of(path: Path) -> _Stage | None:
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
        return None if entry is None else _Stage(shown, name, shown / inside[0] / name, entry)
    return None


def _shown(folder: Path) -> Path:
    """A folder as a user would write it: from here where it lies below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _placed(name: str, stage: _Stage | None) -> Path | None:
    """Where something lies now: in the loop's folder, which may have been moved or copied, or as it was named."""
    path = Path(name)
    *_, iteration, last = ("", "", *path.parts)
    own = stage is not None and iteration.isdecimal() and any(last.startswith(output) for output in _STAGES)
    if stage is not None and own and (moved := stage.folder / iteration / last).exists():
        return moved
    return path if path.exists() else None


def _embedded(content: str | None) -> Path | None:
    """The embedded model of some content."""
    kinds: tuple[ModelKind, ...] = ("base", "simulator", "assistant")
    folders = [locate_model(EMBEDDED, kind) for kind in kinds] if content else []
    return next((folder for folder in folders if content_hash(folder) == content), None)


def _has_record(path: Path) -> bool:
    names = ("config.json", "training.json", DATABASE)
    return any((path / name).exists() for name in names) or _beside(path, ".report.json").exists()


def _conversation(path: Path, id: str, made: Made) -> Made:
    """One conversation of a run or curated file, before what made that.

    Raises:
        StoreError, DataError: it is not there.
    """
    if (path / DATABASE).exists():
        curated = [("curation", str(verdict)) for verdict in verdicts_on(path, id)]
        return Made(f"conversation {id}", [*_facts_of(path, id), *curated], [made])
    dropped = _row(_beside(path, ".dropped.jsonl"), id)
    row = _row(path, id) if dropped is None else dropped
    if row is None:
        raise DataError(f"{path}: no conversation {id!r} in it, nor among those left out of it")
    told = "kept" if dropped is None else f"left out: {row['step']}, {row['reason']}"
    holding = [(run, facts) for run in _runs_of(path) if (facts := _held(run, id)) is not None]
    if len(holding) > 1:
        named = "; ".join(f"selfplay lineage {run} {id}" for run, _ in holding)
        raise DataError(
            f"{path} is made of {len(holding)} runs that have a conversation {id!r}; ask one of them: {named}"
        )
    held = [fact for _, facts in holding for fact in facts]
    return Made(f"conversation {id}", [("curation", told), *held], [made])


def _runs_of(curated: Path) -> list[Path]:
    report, stage = _beside(curated, ".report.json"), _stage_of(curated)
    sources: Sequence[str] = _json(report)["sources"] if report.exists() else []
    found = [_placed(name, stage) for name in sources]
    return [path for path in found if path is not None and (path / DATABASE).exists()]


def _facts_of(folder: Path, id: str) -> list[tuple[str, str]]:
    """How a run held a conversation.

    Raises:
        StoreError: it has none of that id.
    """
    with closing(open_run(folder)) as run:
        conversation = run.conversation(id)
    given = bool(conversation.turns) and conversation.turns[0].origin == "fixed"
    return [
        ("seed", str(conversation.meta["seed"])),
        ("opening", "given" if given else "free"),
        ("rounds", str(conversation.rounds)),
        ("ended", str(conversation.ended)),
    ]


def _held(run: Path, id: str) -> list[tuple[str, str]] | None:
    try:
        return _facts_of(run, id)
    except StoreError:
        return None


def _row(path: Path, id: str) -> dict[str, Any] | None:
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path, columns=["id"], filters=[("id", "==", id)]).to_pylist()
        return rows[0] if rows else None
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open(encoding="utf-8") as lines:
        return next((row for line in lines if (row := json.loads(line)).get("id") == id), None)


def _kind(path: Path) -> str:
    if (path / "config.json").exists():
        return "model"
    return "run" if (path / DATABASE).exists() else "folder" if path.is_dir() else "file"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    return told
