"""`selfplay lineage`: what made a model, a run, a conversation, a curated file or a score, back to where it began.

Every artefact carries its own record (`training.json`, a run's facts, `.report.json`); in a loop's folder it also has a
stage of the ledger. The chain is followed by paths, and models are held against the hash they had then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.chat.models import content_hash
from selfplay.errors import DataError, StoreError
from selfplay.generate.participants import SIDES
from selfplay.loop.artefacts import (
    HASH,
    StageOutput,
    embedded_model,
    find_stage,
    has_record,
    locate_artefact,
    path_kind,
    read_record,
    sibling,
)
from selfplay.loop.evaluate import EXAMPLES
from selfplay.loop.inputs import split_weight
from selfplay.loop.stages.stage import ASSISTANT, BENCH, RUN
from selfplay.loop.status import RECIPE
from selfplay.store.decisions import decisions_on
from selfplay.store.store import DATABASE, is_run, open_run
from selfplay.train.record import RECORD, read_training_record


@dataclass(slots=True)
class Artefact:
    """Something, how it was made, and what from."""

    what: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    parents: list[Artefact] = field(default_factory=list)


def lineage(path: str | Path, id: str | None = None) -> Artefact:
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
    for ending in (".dropped.jsonl", ".report.json", ".report.md"):
        if found.name.endswith(ending) and (curated := found.with_name(found.name.removesuffix(ending))).exists():
            found = curated
    if not found.exists():
        raise DataError(f"{found}: no such file or folder; name a model, a run, a curated file or a loop's score")
    made = _Follower().follow(found)
    return made if id is None else _conversation(found, id, made)


class _Follower:
    """Follows records; what was told already is not told again."""

    def __init__(self) -> None:
        self._told: set[Path] = set()

    def follow(self, path: Path) -> Artefact:
        """What made a file or folder, by its own record and by the ledger it stands in."""
        stage = find_stage(path)
        root = path if stage is None else stage.output
        if root.resolve() in self._told:
            return Artefact(f"{path_kind(root)} {root}", [("see", "above")])
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

    def _by_record(self, root: Path, stage: StageOutput | None) -> Artefact:
        if (root / "config.json").exists() or (root / RECORD).exists():
            return self._model(root, stage)
        if is_run(root):
            return self._run(root, stage)
        if root.is_file() and sibling(root, ".report.json").exists():
            return self._curated(root, stage)
        if stage is not None and stage.name == BENCH:
            return self._scores(root, stage)
        return Artefact(f"{path_kind(root)} {root}")

    def _model(self, root: Path, stage: StageOutput | None) -> Artefact:
        """A trained folder: its recipe, base and data. One that says nothing is where the chain begins."""
        made = Artefact(f"model {root}", [("content", content_hash(root)[:HASH])])
        if not (root / RECORD).exists():
            return made
        record = read_training_record(root)
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

    def _data(self, names: Sequence[str], stage: StageOutput | None) -> list[Artefact]:
        """Files with a history by themselves; what is read as it is, in one line."""
        weighted = [(name, *split_weight(name)) for name in names]
        known = [
            (name, path) for name, plain, _ in weighted if (path := locate_artefact(plain, stage)) and has_record(path)
        ]
        alike: dict[float, list[str]] = {}
        for name, own, weight in weighted:
            if name not in dict(known):
                alike.setdefault(weight, []).append(own)
        datasets = [Artefact(f"datasets {', '.join(names)}" + (f", each × {weight:g}" if weight != 1 else ""))
                    for weight, names in alike.items()]  # fmt: skip
        return [*datasets, *(self._parent(name, stage) for name, _ in known)]

    def _run(self, root: Path, stage: StageOutput | None) -> Artefact:
        """A run: settings, seed, both models by the content they had."""
        with open_run(root) as run:
            facts, (planned, ended) = run.facts(), run.counts()
        config = facts.get("config", {})
        sampling = {role: config.get(side, {}).get("sampling", {}) for role, side in SIDES.items()}
        told = "; ".join(
            f"{side} T {one.get('temperature')}, top-p {one.get('top_p')}" for side, one in sampling.items()
        )
        made = Artefact(f"run {root}", [
            ("conversations", f"{ended:,} of {planned:,} ended"),
            ("seed", str(config.get("seed"))),
            ("openings", str(config.get("simulator", {}).get("openings") or "free")),
            ("sampling", told),
            ("version", str(facts.get("version"))),
        ])  # fmt: skip
        for kind, model in facts.get("models", {}).items():
            parent = self._parent(str(model["path"]), stage, model.get("content_hash"))
            parent.facts.insert(0, ("as", kind))
            made.parents.append(parent)
        return made

    def _curated(self, root: Path, stage: StageOutput | None) -> Artefact:
        report = read_record(sibling(root, ".report.json"))
        steps = {name: step["rows_before"] - step["rows_after"] for name, step in report["steps"].items()}
        left_out = ", ".join(f"{name} {count:,}" for name, count in steps.items() if count) or "none"
        facts = [("kept", f"{report['kept']:,} of {report['conversations']:,}"), ("left out", left_out)]
        return Artefact(f"curated {root}", facts, [self._parent(name, stage) for name in report["sources"]])

    def _scores(self, root: Path, stage: StageOutput) -> Artefact:
        """Scores of a loop: the assistant and the run they are of, and the people beside them."""
        folder, number = stage.folder, stage.entry.iteration
        parents = [folder / f"{number:03d}" / (ASSISTANT if number else "")] if number else []
        parents += [folder / f"{number:03d}" / RUN] if number else []
        if not number and (root / EXAMPLES / DATABASE).exists():
            parents.append(root / EXAMPLES)
        people = stage.entry.identity.get("settings", {}).get("human", [])
        made = Artefact(f"scores {root}", [("people", ", ".join(map(str, people)))])
        made.parents = [self._run(path, stage) if path.name == EXAMPLES else self.follow(path) for path in parents]
        return made

    def _parent(self, name: str, stage: StageOutput | None, then: str | None = None) -> Artefact:
        """What something was made from: a folder or file with a history, a dataset, or what is not here any more."""
        plain, weight = (name, 1.0) if locate_artefact(name, stage) else split_weight(name)
        path = locate_artefact(plain, stage) or embedded_model(then)
        told = [("weight", f"{weight:g}")] if weight != 1 else []
        if path is None:
            facts = [*told, *([("content then", then[:HASH])] if then else [])]
            return Artefact(f"{plain}, which is not here", facts)
        if not has_record(path):
            return Artefact(f"{path_kind(path)} {path}", told)
        made = self.follow(path)
        if then and path.is_dir() and (path / "config.json").exists() and content_hash(path) != then:
            told.append(("CHANGED", f"its content was {then[:HASH]} then"))
        made.facts += told
        return made


def _conversation(path: Path, id: str, made: Artefact) -> Artefact:
    """One conversation of a run or curated file, before what made that.

    Raises:
        StoreError, DataError: it is not there.
    """
    if is_run(path):
        curated = [("curation", str(verdict)) for verdict in decisions_on(path, id)]
        return Artefact(f"conversation {id}", [*_facts_of(path, id), *curated], [made])
    dropped = _row(sibling(path, ".dropped.jsonl"), id)
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
    return Artefact(f"conversation {id}", [("curation", told), *held], [made])


def _runs_of(curated: Path) -> list[Path]:
    report, stage = sibling(curated, ".report.json"), find_stage(curated)
    sources: Sequence[str] = read_record(report)["sources"] if report.exists() else []
    found = [locate_artefact(name, stage) for name in sources]
    return [path for path in found if path is not None and is_run(path)]


def _facts_of(folder: Path, id: str) -> list[tuple[str, str]]:
    """How a run held a conversation.

    Raises:
        StoreError: it has none of that id.
    """
    with open_run(folder) as run:
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
