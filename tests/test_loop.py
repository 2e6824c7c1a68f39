"""The loop: what is done is skipped, what changed is named and made again, what was killed is finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfplay import app
from selfplay.config import load_recipe, shipped_recipes
from selfplay.data.mixing import load_mixture
from selfplay.errors import ConfigError, DataError, StoreError
from selfplay.inputs import with_data
from selfplay.jobs import Job, Plan
from selfplay.loop.ledger import Ledger, alone
from selfplay.loop.stages import STAGES, LoopConfig
from selfplay.looping import _is_done, _run


def silent(line):
    """Says nothing."""


class Worker:
    """A stage that writes its output and counts how often it did."""

    def __init__(self, output, fails=False):
        self.output, self.fails, self.times = output, fails, 0

    def __call__(self):
        self.times += 1
        if self.fails:
            raise RuntimeError("out of luck")
        self.output.write_text("made", encoding="utf-8")
        return {"count": self.times}


def step(ledger, job, say):
    """A stage, unless it is done."""
    if not _is_done(ledger, job, say):
        _run(ledger, job, say)


def job(worker, **made_from):
    return Job(1, "curate", made_from, worker.output, worker)


def test_a_stage_that_is_done_and_unchanged_is_skipped(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out")
    step(ledger, job(worker, seed=1), silent)
    step(ledger, job(worker, seed=1), silent)
    assert worker.times == 1
    entry = ledger.entry(1, "curate")
    assert (entry.state, entry.figures, entry.made_from) == ("done", {"count": 1}, {"seed": 1})
    assert entry.host
    assert entry.seconds >= 0


def test_a_changed_stage_names_what_changed_and_keeps_what_was_there(tmp_path):
    ledger, worker, lines = Ledger(tmp_path), Worker(tmp_path / "out"), []
    step(ledger, job(worker, settings={"seed": 1, "n": 2}), silent)
    step(ledger, job(worker, settings={"seed": 7, "n": 2}), lines.append)
    assert worker.times == 2
    assert "iteration 1, curate: made again, since settings.seed: 1 → 7" in lines
    assert len(list(tmp_path.glob("out*"))) == 2  # the old one under another name


def test_a_stage_whose_output_is_gone_is_made_again(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out")
    step(ledger, job(worker), silent)
    worker.output.unlink()
    step(ledger, job(worker), silent)
    assert worker.times == 2


def test_a_failed_stage_says_why_and_is_tried_again(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out", fails=True)
    with pytest.raises(RuntimeError):
        step(ledger, job(worker), silent)
    entry = ledger.entry(1, "curate")
    assert (entry.state, entry.error) == ("failed", "RuntimeError: out of luck")
    worker.fails = False
    step(ledger, job(worker), silent)
    assert ledger.entry(1, "curate").state == "done"


def test_an_output_without_an_entry_is_kept_aside_with_its_reports_and_made_again(tmp_path):
    worker = Worker(tmp_path / "out")
    worker.output.write_text("somebody's", encoding="utf-8")
    (tmp_path / "out.report.md").write_text("of it", encoding="utf-8")
    (tmp_path / "outer").write_text("something else", encoding="utf-8")
    step(Ledger(tmp_path), job(worker), silent)
    assert worker.output.read_text() == "made"
    assert sorted(path.read_text() for path in tmp_path.glob("out*.aside-*")) == ["of it", "somebody's"]
    assert (tmp_path / "outer").exists()


def plan(tmp_path, name="loop", **changes):
    settings = {"curate": {"settings": {"endings": ["user_ended"]}}, "assistant": {"human": ["sample"]}, **changes}
    folder = tmp_path / name
    kept = folder / "001/kept.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    talks = [[{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": "yes"}] for n in range(10)]
    kept.write_text("".join(json.dumps({"id": str(n), "messages": m}) + "\n" for n, m in enumerate(talks)))
    return Plan(LoopConfig.model_validate(settings), folder, silent)


def test_settings_of_a_stage_go_into_its_recipe_one_by_one_and_null_is_a_value(tmp_path):
    changes = {"settings": {"optim.warmup_steps": 5, "optim": {"max_steps": 20}}}
    made = plan(tmp_path, assistant={"human": ["sample"], **changes}).job(1, "assistant").made_from["settings"]
    assert (made["optim.warmup_steps"], made["optim.max_steps"], made["optim.min_lr_ratio"]) == (5, 20, 0.0)
    generated = plan(tmp_path, generate={"settings": {"user_sampling": {"top_p": 0.5}}}).job(1, "generate").made_from
    assert (generated["settings"]["user_sampling.top_p"], generated["settings"]["user_sampling.max_tokens"]) == (
        0.5,
        96,
    )


def test_a_loop_that_was_moved_or_named_otherwise_is_the_same(tmp_path, monkeypatch):
    made = plan(tmp_path).job(1, "assistant").made_from
    (tmp_path / "loop").rename(tmp_path / "lr=1e-4")
    monkeypatch.chdir(tmp_path)
    moved = Plan(LoopConfig(), Path("lr=1e-4"), silent).job(1, "assistant").made_from
    assert moved["inputs"] == made["inputs"]
    assert moved["settings"] == made["settings"]
    more = {"settings": {"conversations": 400, "max_hours": 3, "kv_cache_gib": 2}}
    generated = [plan(tmp_path, **g).job(1, "generate").made_from for g in ({}, {"generate": more})]
    assert generated[0] == generated[1]


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("7b/loop")])
def test_the_recipes_for_gpus_are_whole(tmp_path, monkeypatch, name):
    """What they name is there and fits: recipes, settings, datasets, engines, layouts."""
    monkeypatch.chdir(tmp_path)
    for model in ("models/usergpt-7b", "models/assistant-7b"):
        Path(model).mkdir(parents=True)
        Path(model, "config.json").write_text("{}", encoding="utf-8")
    config = load_recipe(name, LoopConfig)
    made = Plan(config, Path("loop"), silent)
    training, run = made.assistant_training(1), made.self_play(1)
    one = name.endswith("1gpu")
    assert (training.processes, training.layout.zero, training.lora is not None) == (
        (1, 0, True) if one else (8, 3, False)
    )
    assert run.assistant == "models/assistant-7b"
    assert run.simulator == ("models/usergpt-7b" if one else "loop/001/simulator")
    assert run.simulator_engine.replicas == (1 if one else 4)
    assert one or made.simulator_training(1).processes == 8
    for dataset in (*config.assistant.human, *config.bench.people):
        assert app.entry_named(dataset).hub
    assert not {*config.assistant.human} & {*config.bench.people}


def test_adapters_are_trained_beside_the_model_and_merged_into_it(tmp_path, monkeypatch):
    done = []

    def train(config, *, resume, say):
        done.append(("train", config.out, resume))
        Path(config.out).mkdir(parents=True)
        record = {"conversations": 20, "steps": 3, "eval_loss": 2.0, "supervised_tokens": 500, "log": [{"epoch": 2.0}]}
        Path(config.out, "training.json").write_text(json.dumps(record), encoding="utf-8")

    def merge(adapter, out):
        done.append(("merge", str(adapter), str(out)))
        out.mkdir()
        (out / "config.json").touch()
        (out / "training.json").write_bytes((adapter / "training.json").read_bytes())

    monkeypatch.setattr("selfplay.jobs.train", train)
    monkeypatch.setattr("selfplay.jobs.merge_adapters", merge)
    job = plan(tmp_path, assistant={"settings": {"lora.rank": 4}}).job(1, "assistant")
    figures = job.work()
    out = str(tmp_path / "loop/001/assistant")
    assert done == [("train", f"{out}.adapters", False), ("merge", f"{out}.adapters", out)]
    assert (figures["tokens"], figures["steps"]) == (1000, 3)
    assert figures["human_share"] == pytest.approx(1 - 10 / 20, abs=0.1)
    job.work()  # both are there: nothing is done again
    assert len(done) == 2


def test_people_get_their_share_of_what_is_trained_on(tmp_path):
    held_out = 0.3
    made = plan(tmp_path)
    config = made.assistant_training(1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"held_out": held_out})})
    weighted, kept = made.with_mixture(config, tmp_path / "loop/001/kept.jsonl").data.datasets
    name, weight = weighted.split("=")
    human = len(load_mixture(["sample"], held_out=held_out).train)
    assert name == "sample"
    assert float(weight) * human == pytest.approx(10 * (1 - held_out), rel=1e-4)
    assert kept.endswith("kept.jsonl=1")


def test_a_loop_that_has_begun_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    config, lines = LoopConfig.model_validate({"bench": {"people": ["sgd_dev"]}}), []

    def locate(name):
        if name != "sample":
            raise DataError("not here")

    monkeypatch.setattr("selfplay.inputs.locate", locate)
    with pytest.raises(DataError, match="not here"):
        with_data(config, tmp_path, True, silent)
    assert with_data(config, tmp_path, False, lines.append).bench.people == ("sample",)
    assert any(line.startswith("WARNING: not here") for line in lines)
    monkeypatch.setattr("selfplay.inputs.locate", lambda name: None)  # the data is there now: the sample stays
    assert with_data(config, tmp_path, True, silent).bench.people == ("sample",)
    monkeypatch.setattr("selfplay.inputs.locate", locate)
    with pytest.raises(DataError, match="not here"):
        with_data(LoopConfig.model_validate({"bench": {"people": ["sgd_trian"]}}), tmp_path / "x", False, silent)


def test_two_loops_do_not_share_a_folder(tmp_path):
    with alone(tmp_path), pytest.raises(ConfigError, match="another loop runs in"), alone(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no folder can be made there"), alone(tmp_path / "file"):
        pass


def test_a_broken_entry_is_named(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/notes.json").write_text("{}", encoding="utf-8")
    assert Ledger(tmp_path).entries() == []
    (tmp_path / "ledger/001-curate.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"001-curate.json: cannot be read .*remove it to run the stage again"):
        Ledger(tmp_path).entries()


@pytest.mark.engine
@pytest.mark.training
def test_a_real_loop_killed_in_its_training_finishes_as_if_it_had_not_been(tmp_path):
    settings = {
        "iterations": 1,
        "generate": {"settings": {"conversations": 12, "max_rounds": 4}},
        "curate": {"settings": {"endings": ["user_ended", "max_rounds"], "personal": False, "near_duplicates": None}},
        "assistant": {
            "settings": {"optim": {"max_steps": 60, "batch_tokens": 1024}, "save_steps": 2, "data.held_out": 0.1}
        },
        "bench": {"most": 20},
    }
    recipe = tmp_path / "loop.yaml"
    recipe.write_text(json.dumps(settings), encoding="utf-8")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "selfplay.cli", "loop", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not list(out.glob("001/assistant/checkpoints/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [entry.state for entry in Ledger(out).entries()] == ["done", "done", "running"]
    generated = (out / "ledger/001-generate.json").read_bytes()
    lines = []
    ledger = app.loop(LoopConfig.model_validate(settings), out, lines.append)
    assert [(entry.stage, entry.state) for entry in ledger.entries()] == [
        (stage, "done") for stage in STAGES if stage != "simulator"
    ]
    assert (out / "ledger/001-generate.json").read_bytes() == generated
    assert "iteration 1, generate: done before" in lines
    figures = {entry.stage: entry.figures for entry in ledger.entries()}
    assert figures["assistant"]["steps"] == 60
    assert figures["curate"]["kept"] > 0
    assert figures["bench"]["bits_per_byte"][0] > 0
    kept = len((out / "001/kept.jsonl").read_text().splitlines())
    assert kept == figures["curate"]["kept"]
    lines.clear()
    app.loop(LoopConfig.model_validate(settings), out, lines.append)
    assert [line for line in lines if line.startswith("iteration")] == [
        f"iteration 1, {stage}: done before" for stage in STAGES if stage != "simulator"
    ]
