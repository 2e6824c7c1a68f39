"""One real loop with the embedded pair: killed in its training, finished, reported, traced, foreseen."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from selfplay import app
from selfplay.loop.config import STAGES, LoopConfig
from selfplay.loop.ledger import Ledger

SHORT = {"optim": {"max_steps": 24, "max_tokens_per_batch": 1024}, "save_steps": 2, "data.held_out": 0.1}
SETTINGS = {
    "iterations": 1,
    "simulator": {"train": "first", "settings": {"base": "nano", "data.datasets": ["sample"], "optim.max_steps": 2}},
    "generate": {"settings": {"conversations": 12, "max_rounds": 4}},
    "curate": {"settings": {"end_reasons": ["user_ended", "max_rounds"], "pii": False, "near_duplicates": None}},
    "assistant": {"settings": SHORT},
    "bench": {"max_conversations": 20, "examples": 1},
    "health": [{"metric": "human_share", "min": 0.1}],
}

pytestmark = [pytest.mark.engine, pytest.mark.training]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A loop that was killed in the assistant's training, and the bytes of what it had finished before."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "loop.yaml").write_text(json.dumps(SETTINGS), encoding="utf-8")
    out = folder / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "selfplay.cli", "loop", "run", str(folder / "loop.yaml"), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("001/assistant/checkpoints/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    states = [(entry.iteration, entry.stage, entry.state) for entry in app.loop_status(out).entries]
    done = {path: path.read_bytes() for path in out.glob("ledger/*.json") if "assistant" not in path.name}
    return out, states, done


@pytest.fixture(scope="module")
def finished(killed):
    """The same loop after the same command once more."""
    lines = []
    return app.loop(LoopConfig.model_validate(SETTINGS), killed[0], lines.append), lines


def test_a_loop_killed_in_its_training_goes_on_with_it(killed, finished):
    (out, states, done), (looped, lines) = killed, finished
    assert states == [
        (0, "bench", "done"), (1, "simulator", "done"), (1, "generate", "done"), (1, "curate", "done"),
        (1, "assistant", "interrupted"),
    ]  # fmt: skip
    assert all(path.read_bytes() == before for path, before in done.items())
    assert [(entry.iteration, entry.stage) for entry in looped.entries if entry.state == "done"] == [
        (0, "bench"), *((1, stage) for stage in STAGES),
    ]  # fmt: skip
    assert "iteration 1, generate: done before" in lines
    figures = looped.found[1]
    assert figures["steps"].value == 24
    assert figures["kept"].value == len((out / "001/kept.jsonl").read_text().splitlines()) > 0
    assert 0.3 < figures["human_share"].value < 0.7
    assert figures["gain"].low <= figures["gain"].value <= figures["gain"].high
    assert {"naturalness_auc", "words_per_turn", "rounds", "tokens_per_assistant_turn"} <= set(figures)
    lines.clear()
    app.loop(LoopConfig.model_validate(SETTINGS), out, lines.append)
    told = [line for line in lines if line.startswith("iteration")]
    assert told == ["iteration 0, bench: done before", *(f"iteration 1, {stage}: done before" for stage in STAGES)]


def test_its_assistant_is_traced_back_to_the_embedded_models(finished):
    folder = finished[0].folder

    def every(made):
        return [made, *(found for parent in made.parents for found in every(parent))]

    found = every(app.lineage(folder / "001/assistant"))
    made_by = [dict(made.facts).get("made by") for made in found]
    assert [told.split(" (")[0] for told in made_by if told] == [
        f"iteration 1, {stage}" for stage in ("assistant", "curate", "generate", "simulator")
    ]
    assert not [name for made in found for name, _ in made.facts if name == "CHANGED"]
    assert any(made.what.endswith("nano/assistant") for made in found)
    assert any(made.what.endswith("nano/base") for made in found)


def test_its_report_has_the_examples_that_were_played(finished):
    html, markdown = app.loop_report(finished[0].folder)
    assert "The same openings, iteration by iteration" in html.read_text(encoding="utf-8")
    assert "**iteration 1**" in markdown.read_text(encoding="utf-8")
    entry = Ledger(finished[0].folder).entry(1, "bench")
    assert entry.code.startswith("0.")
    assert entry.host


def test_what_a_loop_will_take_is_foreseen_from_real_samples(tmp_path):
    settings = {**SETTINGS, "iterations": 3, "simulator": {}, "bench": {"max_conversations": 20, "examples": 0}}
    settings["generate"] = {"settings": {"conversations": 64, "max_rounds": 2}}
    foreseen = {
        one.stage: one
        for one in app.estimate_loop(LoopConfig.model_validate(settings), tmp_path / "loop", lambda line: None)
    }
    assert {stage: one.times for stage, one in foreseen.items()} == {
        "generate": 3, "curate": 3, "assistant": 3, "bench": 4,
    }  # fmt: skip
    assert "24 steps of" in foreseen["assistant"].remark
    assert "64 conversations" in foreseen["generate"].remark
    assert all(one.seconds > 0 for one in foreseen.values())
    assert foreseen["generate"].tokens > 64 * 10
    weights = 5_835_520 * 2
    assert weights < foreseen["assistant"].disk < 2 * weights
    assert foreseen["assistant"].peak > 12 * 5_835_520
