"""A loop is killed at any moment, meets full disks and failing stages, and ends as one that met nothing."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from functools import partial

import pytest
import scripted_loop
from typer.testing import CliRunner

from selfplay import app
from selfplay.cli.main import cli
from selfplay.errors import BackendError, SelfplayError
from selfplay.loop.ledger import Ledger, is_locked, locked_loop
from selfplay.loop.run import loop

KILLS, LONGEST = int(os.environ.get("SELFPLAY_KILLS", "3")), 0.3
"""How often, and the longest time in seconds that a loop is left alone; `bench.speed.kill_series` kills more often."""


def outcome(folder):
    """All that a loop leaves that may not depend on when it was killed: ledger, figures, outputs."""
    entries = [(e.iteration, e.stage, e.state, e.identity, e.figures) for e in Ledger(folder).entries()]
    files = {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("0*/**/*")) if path.is_file()
    }
    return entries, files


def begun(folder):
    """A loop in a process of its own, forked from a small one that has the modules loaded."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["scripted_loop"])
    process = processes.Process(target=scripted_loop.run, args=(folder,))
    process.start()
    return process


def ended(process):
    process.join()
    code = process.exitcode
    process.close()
    return code


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome of a loop that met nothing."""
    folder = tmp_path_factory.mktemp("whole")
    scripted_loop.run(folder)
    return outcome(folder)


@pytest.mark.crash
def test_loops_killed_at_any_moment_end_as_one_that_was_not(tmp_path, whole):
    chance, stages, finished = random.Random(5), [], 0
    while len(stages) < KILLS or not finished:
        folder = tmp_path / str(finished)
        process = begun(folder)
        while not is_locked(folder) and process.is_alive():
            time.sleep(0.002)
        if len(stages) < KILLS:
            time.sleep(chance.random() * LONGEST)
            process.kill()
        if (code := ended(process)) == 0:  # it ended before it was killed
            assert outcome(folder) == whole
            assert not list(folder.glob("**/*.aside-*"))
            finished += 1
        else:
            assert code == -signal.SIGKILL
            stages += [[(e.iteration, e.stage) for e in Ledger(folder).entries() if e.state == "running"]]
    # A long series meets most stages; three kills may meet one stage three times.
    assert len({stage for running in stages for stage in running}) >= (4 if KILLS >= 20 else 1), stages


def test_a_killed_stage_is_called_interrupted_and_not_running(tmp_path):
    process = begun(tmp_path / "loop")
    while not list((tmp_path / "loop/001").glob("run/run.jsonl")):
        assert process.is_alive()
        time.sleep(0.005)
    assert app.loop_status(tmp_path / "loop").running
    process.kill()
    ended(process)
    status = app.loop_status(tmp_path / "loop")
    assert not status.running
    assert (status.entries[-1].stage, status.entries[-1].state) == ("generate", "interrupted")
    shown = CliRunner().invoke(cli, ["loop", "status", str(tmp_path / "loop")], catch_exceptions=False).output
    assert "the process was killed; the same command goes on with it" in " ".join(shown.split())
    assert "0 of 2 iterations, not running" in shown


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (BackendError("judge http://127.0.0.1:9: no answer after 5 tries"), "no answer after 5 tries"),
        (SelfplayError("step 12: the loss is no number"), "the loss is no number"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
        (RuntimeError("Error while serializing: No space left on device (28)"), "make room, and the same"),
    ],
)
@pytest.mark.parametrize("stage", ["generate", "assistant", "bench"])
def test_a_failed_stage_is_explained_and_gone_on_with(tmp_path, whole, error, told, stage):
    broken = tmp_path / "broken"
    with pytest.raises(Exception, match=told.split(":")[-1].strip()):
        scripted_loop.run(broken, fails={(1, stage): error})
    status = app.loop_status(broken)
    assert (status.entries[-1].stage, status.entries[-1].state) == (stage, "failed")
    assert told in status.entries[-1].error
    lines = []
    scripted_loop.run(broken, say=lines.append)
    assert lines[0] == "iteration 0, bench: done before"
    assert outcome(broken) == whole


def test_a_disk_too_full_for_the_ledger_does_not_hide_what_broke(tmp_path, monkeypatch):
    lines, real, full = [], Ledger.write, {"failed"}

    def write(self, entry):
        if entry.state in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, entry)

    monkeypatch.setattr(Ledger, "write", write)
    with pytest.raises(SelfplayError, match="the loss is no number"):
        scripted_loop.run(tmp_path, fails={(1, "simulator"): SelfplayError("the loss is no number")}, say=lines.append)
    assert "cannot be written either" in lines[-2]
    assert lines[-1].startswith("iteration 1, simulator: failed after 0:00:00: step") or "no number" in lines[-1]
    full.add("done")
    with pytest.raises(SelfplayError, match=r"No space left .*the same command goes on"):
        scripted_loop.run(tmp_path / "two")
    full.add("running")
    with pytest.raises(SelfplayError, match=r"No space left .*the same command goes on"):
        scripted_loop.run(tmp_path / "three")
    monkeypatch.undo()
    scripted_loop.run(tmp_path)
    assert all(entry.state == "done" for entry in app.loop_status(tmp_path).entries)


def test_what_is_not_here_any_more_is_told_by_status(tmp_path, monkeypatch):
    scripted_loop.run(tmp_path, iterations=1)
    with monkeypatch.context() as patch:
        patch.setattr(scripted_loop.ScriptedPlan, "curate", lambda self, n: 1 / 0 if n == 2 else None)
        with pytest.raises(ZeroDivisionError):
            scripted_loop.run(tmp_path)
    status = app.loop_status(tmp_path)
    assert status.stopped == "iteration 2, curate cannot begin: ZeroDivisionError: division by zero"
    assert not status.alarmed
    assert scripted_loop.run(tmp_path).stopped is None


def test_what_was_done_after_a_stage_that_is_made_again_is_stale_until_it_is_looked_at(tmp_path):
    scripted_loop.run(tmp_path)
    lines = []
    with pytest.raises(SelfplayError):
        scripted_loop.run(tmp_path, seed=7, fails={(1, "generate"): SelfplayError("no")}, say=lines.append)
    assert "iteration 0, bench: made again, the old one is put aside, since settings.seed: 0 → 7" in lines
    status = app.loop_status(tmp_path)
    states = {(entry.iteration, entry.stage): entry.state for entry in status.entries}
    assert states[1, "simulator"] == "done"
    assert states[1, "generate"] == "failed"
    assert {states[1, "bench"], states[2, "bench"], states[2, "generate"]} == {"stale"}
    assert 2 not in status.found
    shown = CliRunner().invoke(cli, ["loop", "status", str(tmp_path)], catch_exceptions=False).output
    assert "0 of 2 iterations, not running" in shown
    scripted_loop.run(tmp_path, seed=7)
    assert {entry.state for entry in app.loop_status(tmp_path).entries} == {"done"}


def test_a_stale_stage_that_comes_out_the_same_is_done(tmp_path):
    scripted_loop.run(tmp_path)
    (tmp_path / "001/kept.jsonl").unlink()
    lines = []
    scripted_loop.run(tmp_path, say=lines.append)
    assert "iteration 1, curate: begins" in lines
    assert "iteration 1, assistant: done before" in lines
    assert {entry.state for entry in app.loop_status(tmp_path).entries} == {"done"}


def test_an_unfinished_stage_that_has_changed_says_so_before_it_is_put_aside(tmp_path):
    with pytest.raises(SelfplayError):
        scripted_loop.run(tmp_path, fails={(1, "generate"): SelfplayError("no")})
    (tmp_path / "001/run").mkdir()
    lines = []
    scripted_loop.run(tmp_path, seed=7, say=lines.append)
    assert "iteration 1, generate: made again, the old one is put aside, since settings.seed: 0 → 7" in lines
    assert list(tmp_path.glob("001/run.aside-*"))


def test_fewer_iterations_are_counted_as_asked(tmp_path):
    scripted_loop.run(tmp_path)
    status = scripted_loop.run(tmp_path, iterations=1)
    assert {entry.iteration for entry in status.entries} == {0, 1}


def test_time_of_attempts_that_failed_outlives_a_kill(tmp_path):
    with pytest.raises(SelfplayError):
        scripted_loop.run(tmp_path, fails={(1, "generate"): SelfplayError("no")})
    ledger = Ledger(tmp_path)
    entry = ledger.entry(1, "generate")
    entry.state, entry.ended, entry.before = "running", None, 7200.0  # as a kill leaves it
    ledger.write(entry)
    scripted_loop.run(tmp_path)
    assert ledger.entry(1, "generate").seconds > 7200


def test_two_loops_at_once_and_status_beside_one(tmp_path):
    scripted_loop.run(tmp_path, iterations=1)
    with locked_loop(tmp_path):
        assert app.loop_status(tmp_path).running
        with pytest.raises(SelfplayError, match="another loop runs in"):
            scripted_loop.run(tmp_path)
    more = scripted_loop.run(tmp_path, iterations=3)
    assert {entry.iteration for entry in more.entries} == {0, 1, 2, 3}


def test_a_loop_stops_by_its_rules_and_goes_on_when_they_are_loosened(tmp_path):
    lines = []
    spent = scripted_loop.run(tmp_path, stop={"max_tokens": 5000}, say=lines.append)
    assert spent.stopped == "stop.max_tokens: 5,000 of 5,000 tokens are spent"
    assert not spent.alarmed
    assert lines[-1] == f"the loop stops: {spent.stopped}; with looser rules or limits the same command goes on"
    assert (spent.entries[-1].iteration, spent.entries[-1].stage) == (1, "assistant")
    assert json.loads((tmp_path / "stopped.json").read_text())["alarm"] is False
    on = scripted_loop.run(tmp_path)
    assert on.stopped is None
    assert (on.entries[-1].iteration, on.entries[-1].stage) == (2, "bench")


def test_an_alarm_stops_the_loop_and_the_command_fails(tmp_path, monkeypatch):
    limits = [
        {"metric": "distinct_2", "relative_to": "human", "min": 1.5, "action": "stop"},
        {"metric": "rounds", "max": 2},
    ]
    lines = []
    looped = scripted_loop.run(tmp_path, health=limits, say=lines.append)
    assert looped.alarmed
    assert looped.stopped.startswith("collapse alarm in iteration 1: distinct_2 is 1.03 of people's (0.400, 0.390)")
    assert [line.split(",")[0] for line in lines if line.isupper() or "iteration 1: " in line][:1] == ["ALARM"]
    monkeypatch.setattr("selfplay.loop.run.loop", partial(loop, make_plan=scripted_loop.ScriptedPlan))
    (tmp_path / "recipe.yaml").write_text((tmp_path / "loop.yaml").read_text())
    ran = CliRunner().invoke(cli, ["loop", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path)])
    assert ran.exit_code == 1
    assert "collapse alarm" in ran.output
