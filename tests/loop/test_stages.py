"""The loop: what is done is skipped, what changed is named and made again, what was killed is finished."""

import json
import shutil
from pathlib import Path

import pytest
from held_runs import hold
from judge_files import data_folder

from selfplay import app
from selfplay.chat.models import content_hash, locate_model
from selfplay.data.mixing import load_mixture
from selfplay.errors import ConfigError, DataError, ModelError, StoreError
from selfplay.loop.config import LoopConfig
from selfplay.loop.inputs import with_data
from selfplay.loop.ledger import Ledger, locked_loop
from selfplay.loop.plan import LoopPlan
from selfplay.loop.run import _is_done, _put_aside, _run
from selfplay.loop.stages.curate import curation
from selfplay.loop.stages.generate import self_play
from selfplay.loop.stages.stage import Job
from selfplay.loop.stages.training import assistant_training, simulator_training, with_mixture
from selfplay.recipe import differences, load_recipe, shipped_recipes
from selfplay.train.run import _identity, _refuse_changes


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


def job(worker, **identity):
    return Job(1, "curate", identity, worker.output, worker)


def test_a_stage_that_is_done_and_unchanged_is_skipped(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out")
    step(ledger, job(worker, seed=1), silent)
    step(ledger, job(worker, seed=1), silent)
    assert worker.times == 1
    entry = ledger.entry(1, "curate")
    assert (entry.state, entry.figures, entry.identity) == ("done", {"count": 1}, {"seed": 1})
    assert entry.host
    assert entry.seconds >= 0


def test_a_changed_stage_names_what_changed_and_keeps_what_was_there(tmp_path):
    ledger, worker, lines = Ledger(tmp_path), Worker(tmp_path / "out"), []
    step(ledger, job(worker, settings={"seed": 1, "n": 2}), silent)
    step(ledger, job(worker, settings={"seed": 7, "n": 2}), lines.append)
    assert worker.times == 2
    assert "iteration 1, curate: made again, the old one is put aside, since settings.seed: 1 → 7" in lines
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
    settings = {"curate": {"settings": {"end_reasons": ["user_ended"]}}, "assistant": {"human": ["sample"]}, **changes}
    folder = tmp_path / name
    kept = folder / "001/kept.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    talks = [[{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": "yes"}] for n in range(10)]
    kept.write_text("".join(json.dumps({"id": str(n), "messages": m}) + "\n" for n, m in enumerate(talks)))
    return LoopPlan(LoopConfig.model_validate(settings), folder, silent)


def test_settings_of_a_stage_go_into_its_recipe_one_by_one_and_null_is_a_value(tmp_path):
    changes = {"settings": {"optim.warmup_steps": 5, "optim": {"max_steps": 20}}}
    made = plan(tmp_path, assistant={"human": ["sample"], **changes}).job(1, "assistant").identity["settings"]
    assert (made["optim.warmup_steps"], made["optim.max_steps"], made["optim.min_lr_ratio"]) == (5, 20, 0.0)
    generated = (
        plan(tmp_path, generate={"settings": {"simulator.sampling": {"top_p": 0.5}}}).job(1, "generate").identity
    )
    assert (
        generated["settings"]["simulator.sampling.top_p"],
        generated["settings"]["simulator.sampling.max_tokens"],
    ) == (
        0.5,
        96,
    )


def test_a_loop_that_was_moved_or_named_otherwise_is_the_same(tmp_path, monkeypatch):
    made = plan(tmp_path).job(1, "assistant").identity
    (tmp_path / "loop").rename(tmp_path / "lr=1e-4")
    monkeypatch.chdir(tmp_path)
    moved = LoopPlan(LoopConfig(), Path("lr=1e-4"), silent).job(1, "assistant").identity
    assert moved["inputs"] == made["inputs"]
    assert moved["settings"] == made["settings"]
    more = {"settings": {"conversations": 400, "max_hours": 3, "kv_cache_gib": 2}}
    generated = [plan(tmp_path, **g).job(1, "generate").identity for g in ({}, {"generate": more})]
    assert generated[0] == generated[1]


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("7b/loop")])
def test_the_recipes_for_gpus_are_whole(tmp_path, monkeypatch, name):
    """What they name is there and fits: recipes, settings, datasets, engines, layouts."""
    monkeypatch.chdir(tmp_path)
    for model in ("models/usergpt-7b", "models/assistant-7b"):
        Path(model).mkdir(parents=True)
        Path(model, "config.json").write_text("{}", encoding="utf-8")
    config = load_recipe(name, LoopConfig)
    made = LoopPlan(config, Path("loop"), silent)
    training, run = assistant_training(made.context, 1), self_play(made.context, 1)
    one = name.endswith("1gpu")
    assert (training.processes, training.layout.zero, training.lora is not None) == (
        (1, 0, True) if one else (8, 3, False)
    )
    assert run.assistant.model == "models/assistant-7b"
    assert run.simulator.model == ("models/usergpt-7b" if one else "loop/001/simulator")
    assert run.simulator.engine.replicas == (1 if one else 4)
    assert one or simulator_training(made.context, 1).processes == 8
    made.check()
    for dataset in (*config.assistant.human, *config.bench.human):
        assert app.dataset_named(dataset).hub
    assert not {*config.assistant.human} & {*config.bench.human}


def test_adapters_are_trained_beside_the_model_and_merged_into_it(tmp_path, monkeypatch):
    done = []

    def train(config, side, *, resume, say):
        done.append(("train", config.output_dir, resume))
        Path(config.output_dir).mkdir(parents=True)
        record = {"conversations": 20, "steps": 3, "eval_loss": 2.0, "supervised_tokens": 500, "log": [{"epoch": 2.0}]}
        Path(config.output_dir, "training.json").write_text(json.dumps(record), encoding="utf-8")

    def merge(adapter, out):
        done.append(("merge", str(adapter), str(out)))
        assert not list(out.glob(".*"))
        out.mkdir(exist_ok=True)
        (out / "config.json").touch()
        (out / "training.json").write_bytes((adapter / "training.json").read_bytes())

    monkeypatch.setattr("selfplay.loop.stages.training.train", train)
    monkeypatch.setattr("selfplay.loop.stages.training.merge", merge)
    job = plan(tmp_path, assistant={"settings": {"lora.rank": 4}}).job(1, "assistant")
    (tmp_path / "loop/001/assistant/.merging0").mkdir(parents=True)  # as a kill leaves it
    figures = job.work()
    out = str(tmp_path / "loop/001/assistant")
    assert done == [("train", f"{out}.adapters", False), ("merge", f"{out}.adapters", out)]
    assert (figures["tokens"], figures["steps"]) == (1000, 3)
    assert figures["human_share"] == pytest.approx(1 - 10 / 20, abs=0.1)
    job.work()  # both are there: nothing is done again
    assert len(done) == 2


def test_what_changes_a_stage_is_in_what_it_is_made_from(tmp_path):
    """A setting, a file or folder that a setting names, the kept conversations, the people, the first assistant."""
    words, reward = tmp_path / "words.txt", tmp_path / "reward"
    words.write_text("darn\n", encoding="utf-8")
    reward.mkdir()
    (reward / "config.json").write_text("{}", encoding="utf-8")
    hold(tmp_path / "loop/001/run", {"c0": ["a b c d e", "f"]})
    settings = {"banned_words": str(words), "reward": {"model": str(reward), "lowest": 0}}

    def made(stage, **changes):
        return plan(tmp_path, curate={"settings": settings}, **changes).job(1, stage).identity

    assert made("curate") == made("curate")
    for path, text in ((words, "heck\n"), (reward / "config.json", '{"a": 1}')):
        before = made("curate")
        path.write_text(text, encoding="utf-8")
        assert [change.split(":")[0] for change in differences(before, made("curate"))] == [
            f"inputs.{path if path == words else reward}"
        ]
    before = made("assistant")
    with (tmp_path / "loop/001/kept.jsonl").open("a") as kept:
        kept.write(
            '{"id": "n", "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}\n'
        )
    after = LoopPlan(LoopConfig(), tmp_path / "loop", silent).job(1, "assistant").identity
    assert [change.split(":")[0] for change in differences(before, after)] == ["inputs.kept"]
    first = plan(tmp_path).job(0, "bench").identity
    assert first["inputs"]["assistant"] == content_hash(locate_model("nano", "assistant"))
    changed = plan(tmp_path, bench={"max_conversations": 50}).job(0, "bench").identity
    assert differences(first, changed) == ["settings.max_conversations: 400 → 50"]
    served = {"judge": "http://h:1/v1", "settings": {"data": str(tmp_path), "judge_endpoint": {"timeout": 3}}}
    slower = {"judge": "http://h:1/v1", "settings": {"data": str(tmp_path), "judge_endpoint": {"timeout": 9}}}
    assert (
        plan(tmp_path, bench=served).job(0, "bench").identity == plan(tmp_path, bench=slower).job(0, "bench").identity
    )


def test_a_bench_that_is_made_again_keeps_the_answers_of_the_same_assistant(tmp_path):
    asked, judge = {"data": str(tmp_path), "max_tokens": 64}, "http://h:1/v1"
    job = plan(tmp_path, bench={"judge": judge, "settings": asked}).job(0, "bench")
    before = (
        plan(tmp_path, bench={"judge": judge, "settings": asked, "max_conversations": 50, "examples": 0})
        .job(0, "bench")
        .identity
    )
    assert job.lasts(before) == ("judged",)
    other = plan(tmp_path, bench={"judge": judge, "settings": {**asked, "max_tokens": 65}}).job(0, "bench").identity
    assert job.lasts(other) == ()
    assert job.lasts({**before, "inputs": {"assistant": "another"}}) == ()
    (job.output / "judged").mkdir(parents=True)
    (job.output / "scorecard.md").touch()
    _put_aside(job, before)
    assert [path.name for path in job.output.iterdir()] == ["judged"]


def test_curation_in_a_loop_knows_people_the_simulators_data_and_the_questions(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFPLAY_BENCH_DATA", str(data_folder(tmp_path / "bench-data")))
    judged = curation(plan(tmp_path, bench={"judge": "gpt-4.1"}).context, 1)
    assert judged.dedup_against == ("sample",)
    assert judged.decontaminate_against == (str(tmp_path / "bench-data/mt_bench/question.jsonl"),)
    named = {"dedup_against": ["sgd_dev"], "memorization_reference": ["sample"]}
    own = curation(plan(tmp_path, curate={"settings": named}).context, 1)
    assert (own.dedup_against, own.memorization_reference, own.decontaminate_against) == (("sgd_dev",), ("sample",), ())
    with pytest.raises(ConfigError, match="ids are the same in every iteration"):
        curation(plan(tmp_path, curate={"settings": {"scores": {"file": "x", "lowest": 1}}}).context, 1)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"assistant": {"human": ["sample"], "settings": {"optim.learning_rte": 1}}}, ConfigError, "learning_rte"),
        ({"curate": {"settings": {"min_round": 1}}}, ConfigError, "min_round"),
        ({"simulator": {"train": "first", "settings": {"optim.epoch": 1}}}, ConfigError, "epoch"),
        ({"generate": {"recipe": "nano/generat"}}, ConfigError, "nano/generat"),
        ({"bench": {"judge": "nano", "settings": {"max_token": 1}}}, ConfigError, "max_token"),
        ({"bench": {"judge": "nano", "sets": ["mt-bensh"]}}, ConfigError, "mt-bensh"),
        ({"assistant": {"human": ["sgd_trian"]}}, DataError, "sgd_trian"),
        ({"assistant": {"human": ["sample"], "model": "nowhere"}}, ModelError, "nowhere"),
        ({"simulator": {"model": "nowhere"}}, ModelError, "nowhere"),
    ],
)
def test_what_a_later_stage_would_stumble_over_is_told_before_the_first_one_begins(tmp_path, settings, error, told):
    with pytest.raises(error, match=told):
        app.loop(LoopConfig.model_validate(settings), tmp_path / "out", silent)
    assert not list(tmp_path.glob("out/0*"))


def test_people_whom_the_assistant_learns_from_are_measured_where_its_training_holds_them_out(tmp_path):
    told = plan(tmp_path, assistant={"human": ["sample"], "settings": {"data.held_out": 0.2}}).job(0, "bench").identity
    assert told["settings"]["held out of human"] == 0.2
    kept = str(tmp_path / "loop/001/kept.jsonl")
    apart = plan(tmp_path, bench={"human": [kept]}).job(0, "bench").identity
    assert apart["settings"]["held out of human"] == 0.0
    human = {"human": ["sample", f"{tmp_path}/loop/../loop/001/kept.jsonl=2"]}  # the same file by another name
    assert plan(tmp_path, assistant=human, bench={"human": [kept]}).job(0, "bench").identity["settings"][
        "held out of human"
    ] == pytest.approx(0.05)


def test_a_training_goes_on_where_its_base_and_data_lie_elsewhere(tmp_path):
    """The base is known by its content, the data by its fingerprint; a recipe that changes is still refused."""
    config = assistant_training(plan(tmp_path).context, 1)
    moved = tmp_path / "moved"
    shutil.copytree(str(config.base), moved)
    elsewhere = config.model_copy(update={"base": str(moved), "output_dir": "elsewhere"})
    assert _identity(config)["base"] == _identity(elsewhere)["base"] == content_hash(moved)
    stored = {**_identity(config), "data fingerprint": "f"}
    data = {"data.datasets": ["another/kept.jsonl=1"]}
    _refuse_changes(tmp_path, stored, {**_identity(elsewhere), **data, "data fingerprint": "f"})
    with pytest.raises(ConfigError, match=r"data.datasets: .*another/kept"):
        _refuse_changes(tmp_path, stored, {**stored, **data, "data fingerprint": "g"})


def test_people_get_their_share_of_what_is_trained_on(tmp_path):
    held_out = 0.3
    made = plan(tmp_path)
    config = assistant_training(made.context, 1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"held_out": held_out})})
    weighted, kept = with_mixture(made.context, config, tmp_path / "loop/001/kept.jsonl").data.datasets
    name, weight = weighted.split("=")
    human = len(load_mixture(["sample"], held_out=held_out).train)
    assert name == "sample"
    assert float(weight) * human == pytest.approx(10 * (1 - held_out), rel=1e-4)
    assert kept.endswith("kept.jsonl=1")


def test_a_loop_that_has_begun_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    config, lines = LoopConfig.model_validate({"bench": {"human": ["sgd_dev"]}}), []

    def locate(name):
        if name != "sample":
            raise DataError("not here")

    monkeypatch.setattr("selfplay.loop.inputs.locate", locate)
    with pytest.raises(DataError, match="not here"):
        with_data(config, tmp_path, True, silent)
    assert with_data(config, tmp_path, False, lines.append).bench.human == ("sample",)
    assert any(line.startswith("WARNING: not here") for line in lines)
    monkeypatch.setattr("selfplay.loop.inputs.locate", lambda name: None)  # the data is there now: the sample stays
    assert with_data(config, tmp_path, True, silent).bench.human == ("sample",)
    monkeypatch.setattr("selfplay.loop.inputs.locate", locate)
    with pytest.raises(DataError, match="not here"):
        with_data(LoopConfig.model_validate({"bench": {"human": ["sgd_trian"]}}), tmp_path / "x", False, silent)


def test_two_loops_do_not_share_a_folder(tmp_path):
    with locked_loop(tmp_path), pytest.raises(ConfigError, match="another loop runs in"), locked_loop(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no folder can be made there"), locked_loop(tmp_path / "file"):
        pass


def test_a_broken_entry_is_named(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/notes.json").write_text("{}", encoding="utf-8")
    assert Ledger(tmp_path).entries() == []
    (tmp_path / "ledger/001-curate.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"001-curate.json: cannot be read .*remove it to run the stage again"):
        Ledger(tmp_path).entries()
