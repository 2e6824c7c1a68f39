"""The loop: what is done is skipped, what changed is named and made again, what was killed is finished."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from selfplay import app
from selfplay.cli import cli
from selfplay.errors import ConfigError, StoreError
from selfplay.loop.ledger import Entry, Ledger, alone
from selfplay.loop.stages import STAGES, LoopConfig
from selfplay.looping import Job, _run


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


def job(worker, **made_from):
    return Job(1, "curate", made_from, worker.output, worker)


def test_a_stage_that_is_done_and_unchanged_is_skipped(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out")
    _run(ledger, job(worker, seed=1), silent)
    _run(ledger, job(worker, seed=1), silent)
    assert worker.times == 1
    entry = ledger.entry(1, "curate")
    assert (entry.state, entry.figures, entry.made_from) == ("done", {"count": 1}, {"seed": 1})
    assert entry.host
    assert entry.seconds >= 0


def test_a_changed_stage_names_what_changed_and_keeps_what_was_there(tmp_path):
    ledger, worker, lines = Ledger(tmp_path), Worker(tmp_path / "out"), []
    _run(ledger, job(worker, settings={"seed": 1, "n": 2}), silent)
    _run(ledger, job(worker, settings={"seed": 7, "n": 2}), lines.append)
    assert worker.times == 2
    assert "iteration 1, curate: made again, since settings.seed: 1 → 7" in lines
    assert len(list(tmp_path.glob("out*"))) == 2  # the old one under another name


def test_a_stage_whose_output_is_gone_is_made_again(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out")
    _run(ledger, job(worker), silent)
    worker.output.unlink()
    _run(ledger, job(worker), silent)
    assert worker.times == 2


def test_a_failed_stage_says_why_and_is_tried_again(tmp_path):
    ledger, worker = Ledger(tmp_path), Worker(tmp_path / "out", fails=True)
    with pytest.raises(RuntimeError):
        _run(ledger, job(worker), silent)
    entry = ledger.entry(1, "curate")
    assert (entry.state, entry.error) == ("failed", "RuntimeError: out of luck")
    worker.fails = False
    _run(ledger, job(worker), silent)
    assert ledger.entry(1, "curate").state == "done"


def test_two_loops_do_not_share_a_folder(tmp_path):
    with alone(tmp_path), pytest.raises(ConfigError, match="another loop runs in"), alone(tmp_path):
        pass


def test_a_broken_entry_is_named(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/001-curate.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"001-curate.json: cannot be read .*remove it to run the stage again"):
        Ledger(tmp_path).entries()


def test_status_shows_every_stage_in_order(tmp_path):
    ledger = Ledger(tmp_path)
    for iteration, stage, state in ((2, "generate", "running"), (1, "bench", "done"), (1, "generate", "failed")):
        entry = Entry(iteration, stage, {}, state=state, error="no luck" if state == "failed" else None)
        entry.figures = {"bits_per_byte": [1.0, 0.9, 1.1], "rounds": 8} if state == "done" else {}
        ledger.write(entry)
    shown = CliRunner().invoke(cli, ["loop", "status", str(tmp_path)], catch_exceptions=False).output
    assert shown.index("1 generate") < shown.index("1 bench") < shown.index("2 generate")
    assert "no luck" in shown
    assert "1.000 [0.900, 1.100]" in " ".join(shown.split())
    with pytest.raises(ConfigError, match="no loop in it"):
        app.loop_status(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="name the loop's folder"):
        CliRunner().invoke(cli, ["loop", "nano/loop"], catch_exceptions=False)


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
