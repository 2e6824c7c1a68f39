"""What made a conversation, a model, a score: the chain of records and ledger, also where something is gone."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
import scripted_loop
from held_runs import hold
from typer.testing import CliRunner

from selfplay import app
from selfplay.chat.models import content_hash
from selfplay.cli.main import cli
from selfplay.errors import DataError, StoreError


def flat(made):
    """What a tree tells, a line each."""
    lines = [made.what, *(f"{name}: {fact}" for name, fact in made.facts)]
    return lines + [line for parent in made.parents for line in flat(parent)]


def model(folder, base=None, datasets=("sample",)):
    """A folder that looks like one that was trained."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    recipe = {
        "role": "assistant",
        "description": "a test",
        "base": base and str(base),
        "optim": {"seed": 3, "learning_rate": 1e-4},
        "data": {"datasets": list(datasets)},
    }
    parents = [{"model": str(base), "content_hash": content_hash(base)}] if base else []
    record = {"recipe": recipe, "steps": 7, "conversations": 20, "data_fingerprint": "f1", "lineage": parents}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_conversation_a_model_and_a_score_know_what_made_them(tmp_path):
    run = tmp_path / "loop/001/run"
    facts = {
        "config": {"seed": 5},
        "models": {"assistant": {"path": "gone/model", "content_hash": "abc"}},
        "version": "0.1",
    }
    hold(run, {"c0": ["a b c d e", "f"], "c1": ["a b c d", "x", "A B C D", "y"]}, facts)
    lines = []
    app.curate([str(run)], tmp_path / "loop/001/kept.jsonl", app.CurateConfig(), lines.append)
    made = app.lineage(tmp_path / "loop/001/kept.jsonl", "c1")
    assert ("curation", "left out: repeats, the user repeats a turn") in made.facts
    assert ("seed", "1") in made.facts
    assert app.lineage(tmp_path / "loop/001/kept.jsonl.dropped.jsonl", "c1") == made
    (curated,) = made.parents
    assert curated.facts == [("kept", "1 of 2"), ("left out", "repeats 1")]
    (held,) = curated.parents
    assert held.what == f"run {run}"
    assert [parent.what for parent in held.parents] == ["gone/model, which is not here"]
    assert held.parents[0].facts == [("as", "assistant"), ("content then", "abc")]
    assert [str(verdict) for verdict in app.decisions_on(run, "c1")] == [
        f"left out of {tmp_path.resolve()}/loop/001/kept.jsonl: repeats, the user repeats a turn"
    ]
    told = app.lineage(run, "c0").facts
    assert ("curation", f"kept in {tmp_path.resolve()}/loop/001/kept.jsonl") in told
    shown = CliRunner().invoke(cli, ["lineage", str(run), "c0"], catch_exceptions=False).output
    assert "conversation c0" in shown
    shown = CliRunner().invoke(cli, ["show", str(run), "c1"], catch_exceptions=False).output
    assert "repeats, the user repeats a turn" in " ".join(shown.split())


def test_a_model_knows_its_base_and_its_data_and_whether_they_are_still_the_same(tmp_path):
    hold(tmp_path / "run", {"c0": ["a b c d e", "f"]})
    app.curate([str(tmp_path / "run")], tmp_path / "kept.jsonl", app.CurateConfig(), lambda line: None)
    base = model(tmp_path / "base")
    trained = model(tmp_path / "trained", base, ["sample=0.5", "sgd_train=0.5", f"{tmp_path}/kept.jsonl=1"])
    told = flat(app.lineage(trained))
    assert "steps: 7 at 0.0001" in told
    assert "datasets sample, sgd_train, each × 0.5" in told
    assert [line for line in told if line.startswith(("model", "curated", "run"))] == [
        f"model {trained}", f"model {base}", f"curated {tmp_path}/kept.jsonl", f"run {tmp_path}/run",
    ]  # fmt: skip
    assert not [line for line in told if line.startswith("CHANGED")]
    (base / "extra.json").write_text("{}", encoding="utf-8")
    assert [line for line in flat(app.lineage(trained)) if line.startswith("CHANGED")]
    shutil.rmtree(base)
    assert f"{base}, which is not here" in flat(app.lineage(trained))


def test_a_score_of_a_loop_goes_back_to_the_first_assistant_through_the_ledger(tmp_path):
    scripted_loop.run(tmp_path / "loop")
    (tmp_path / "loop").rename(tmp_path / "moved")
    told = flat(app.lineage(tmp_path / "moved/002/bench/scores.json"))
    made = [line.removeprefix("made by: ") for line in told if line.startswith("made by")]
    assert made == [f"iteration 2, {stage} (done)" for stage in ("bench", "assistant", "generate")]
    assert any(line.startswith("figures: bits_per_byte 0.7") for line in told)
    assert f"settings: {tmp_path}/moved/ledger/002-bench.json" in told
    shown = CliRunner().invoke(cli, ["lineage", str(tmp_path / "moved/001/kept.jsonl")], catch_exceptions=False).output
    assert "iteration 1, curate (done)" in shown


def test_what_nobody_can_tell(tmp_path):
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(DataError, match="nothing says what made it"):
        app.lineage(tmp_path / "notes.txt")
    scripted_loop.run(tmp_path / "loop", iterations=1)
    with pytest.raises(DataError, match=r"loop is a loop; name something in it, such as .*loop/001/assistant"):
        app.lineage(tmp_path / "loop")
    with pytest.raises(DataError, match="no such file or folder"):
        app.lineage(tmp_path / "nowhere")
    hold(tmp_path / "run", {"c0": ["a b c d e", "f"]})
    with pytest.raises(StoreError, match="no conversation 'c7'"):
        app.lineage(tmp_path / "run", "c7")
    app.curate([str(tmp_path / "run")], tmp_path / "kept.jsonl", app.CurateConfig(), lambda line: None)
    with pytest.raises(DataError, match="no conversation 'c7' in it, nor among those left out"):
        app.lineage(tmp_path / "kept.jsonl", "c7")


def test_parquet_and_ids_of_several_runs(tmp_path):
    for name, said in (("lr=1e-4", "a b c d e"), ("two", "f g h i j")):
        hold(tmp_path / name, {"c0": [said, "f"]})
    app.curate([str(tmp_path / "two")], tmp_path / "one.parquet", app.CurateConfig(), lambda line: None)
    assert ("curation", "kept") in app.lineage(tmp_path / "one.parquet", "c0").facts
    sources = [str(tmp_path / "lr=1e-4"), str(tmp_path / "two")]
    app.curate(sources, tmp_path / "both.jsonl", app.CurateConfig(), lambda line: None)
    with pytest.raises(
        DataError, match=r"2 runs that have a conversation 'c0'; ask one of them: selfplay lineage .*lr=1e-4 c0"
    ):
        app.lineage(tmp_path / "both.jsonl", "c0")
    assert f"run {tmp_path}/lr=1e-4" in flat(app.lineage(tmp_path / "both.jsonl"))


def test_a_curation_again_takes_the_place_of_its_verdicts(tmp_path):
    run = tmp_path / "run"
    hold(run, {"c0": ["a b c d e", "f"], "c1": ["hi", "ho"]})
    for settings, step in (({}, None), ({"min_rounds": 2}, "length"), ({"max_turn_words": 1}, None)):
        app.curate([str(run)], tmp_path / "kept.jsonl", app.CurateConfig(**settings), lambda line: None)
        assert [verdict.step for verdict in app.decisions_on(run, "c1")] == [step]
    assert [verdict.step for verdict in app.decisions_on(run, "c0")] == ["length"]


def test_a_run_of_an_older_version_that_cannot_be_written_is_read_and_curated(tmp_path, monkeypatch):
    run, lines = tmp_path / "run", []
    hold(run, {"c0": ["a b c d e", "f"]})
    with closing(sqlite3.connect(run / "run.db")) as database:
        database.executescript(
            "DROP TABLE decisions; PRAGMA user_version = 1; PRAGMA journal_mode = DELETE;"
            + "".join(
                f"ALTER TABLE conversations DROP COLUMN {name};"
                for name in ("way", "user_context", "assistant_context", "plan", "details", "parent")
            )
        )
    monkeypatch.setattr("selfplay.store.store.os.access", lambda path, mode, **_: False)
    assert app.curate([str(run)], tmp_path / "kept.jsonl", app.CurateConfig(), lines.append).kept == 1
    assert any("decisions cannot be written" in line for line in lines)
    assert app.decisions_on(run, "c0") == []
    monkeypatch.undo()
    app.curate([str(run)], tmp_path / "kept.jsonl", app.CurateConfig())
    assert [verdict.step for verdict in app.decisions_on(run, "c0")] == [None]
