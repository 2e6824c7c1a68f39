"""Judged benchmarks as commands, on real questions and in real engines."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from judge_files import Judge, bench, data_folder, judging, rows, write_lines
from score_files import run

from selfplay.errors import ConfigError


@pytest.fixture
def data(tmp_path):
    return data_folder(tmp_path / "data")


def test_the_command_prints_the_standings_and_where_the_report_is(data, tmp_path):
    with judging() as url:
        done = run("mt-bench", "--model", f"m={url}", "--judge", url, "--data", data, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for text in (
        "m: 8 questions answered",
        "scores of 1 to 10 by scripted",
        "writing",
        "without a verdict: 0",
        "report:",
    ):
        assert text in done.output
    again = run("report", tmp_path / "out")
    assert "scores of 1 to 10 by scripted" in again.output


def test_a_set_of_ones_own_is_a_yaml_file_beside_its_questions(data, tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\ntitle: Mine\nquestions: [q.jsonl]\ntemperatures: {odd: 0.0}\n", encoding="utf-8")
    questions = [{"question_id": f"q{n}", "category": "odd", "turns": ["one?"]} for n in range(3)]
    write_lines(tmp_path / "q.jsonl", questions)
    with judging() as url:
        common = ["--model", f"m={url}", "--judge", url, "--data", data, "--out", tmp_path / "out"]
        done = run("questions", own, *common)
        assert "Mine: scores of 1 to 10 by scripted" in done.output
        assert len(rows(tmp_path / "out/mine/model_judgment/scripted_single.jsonl")) == 3
        with pytest.raises(ConfigError, match="bench mt-bench takes no file"):
            run("mt-bench", own, *common)
        with pytest.raises(ConfigError, match="needs the YAML file of a question set"):
            run("questions", *common)
        with pytest.raises(ConfigError, match=r"a server needs a name for the table; give NAME=http"):
            run("mt-bench", "--model", url, "--out", tmp_path / "out")


@pytest.mark.engine
def test_any_model_judges_in_an_engine(tmp_path):
    """The nano assistant as a judge: what it says means nothing, that it says it in the asked form does."""
    data = data_folder(tmp_path / "data", questions=2)
    said = [{"index": 0, "turns": ["It is fine.", "So is this."]}]
    answers = [{"question_id": n, "model_id": "m", "choices": said} for n in (1, 2)]
    write_lines(tmp_path / "out/mt_bench/model_answer/m.jsonl", answers)
    settings = {"models": {"m": "m"}, "judge": "nano", "structured": True, "judge_max_tokens": 250}
    (report,) = bench(data, tmp_path / "out", "", **settings)
    assert report.judgments == 4
    judgments = rows(tmp_path / "out/mt_bench/model_judgment/nano_single.jsonl")
    rated = [row for row in judgments if row["score"] != -1]
    assert rated
    for row in rated:
        assert json.loads(row["judgment"]).keys() == {"explanation", "rating"}
        assert json.loads(row["judgment"])["rating"] == row["score"]


@pytest.mark.engine
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "count"), [("mt-bench", "mt_bench", 160), ("vicuna-bench", "vicuna_bench", 80)]
)
def test_the_nano_assistant_on_the_real_questions_with_faults_and_a_kill(data_folder, tmp_path, name, folder, count):
    judge, out, data = Judge(garbage=0.3), tmp_path / "out", data_folder / "eval"
    judgments = out / folder / "model_judgment/scripted_single.jsonl"
    settings = [
        "--max-tokens",
        "16",
        "--set",
        "judge_endpoint.max_concurrency=8",
        "--set",
        "judge_endpoint.timeout=0.5",
    ]
    with judging(judge, faults=0.3, stall=1.0, latency=0.02) as url:
        command = [sys.executable, "-m", "selfplay.cli", "bench", name, "--model", "nano", "--judge", url,
                   "--data", data, "--out", out, *settings]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not judgments.exists() or judgments.read_bytes().count(b"\n") < count // 4:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = [row["user_prompt"] for row in rows(judgments) if row["score"] != -1]
        before, answered = judge.asked.copy(), rows(out / folder / "model_answer/nano.jsonl")
        (report,) = bench(data, out, url, set=name, models={"nano": "nano"}, max_tokens=16)
    asked = judge.asked - before
    assert not [prompt for prompt in done if asked["judge", prompt]]
    assert [row["answer_id"] for row in rows(out / folder / "model_answer/nano.jsonl")] == [
        row["answer_id"] for row in answered
    ]
    assert (report.judgments, report.questions, report.of) == (count, 80, 80)
    causes = sum(report.unjudged.values())
    assert report.unjudged.keys() <= {"unparsed", "context_full", "no_first_answer"}
    assert sum(row["score"] != -1 for row in rows(judgments)) == count - causes


@pytest.mark.data
def test_the_published_sets_are_read_whole(data_folder):
    from bench.assistant.sets import open_set

    eval_folder = str(data_folder / "eval")
    counts = {"mt-bench": 80, "vicuna-bench": 80, "arena-hard": 500, "alpaca-eval": 805}
    for name, count in counts.items():
        files = open_set(name, eval_folder)
        assert len(files.questions()) == count
        assert {question.category for question in files.questions()} == {
            *files.set.temperatures
        } or name == "alpaca-eval"
    assert len({q.id for q in open_set("mt-bench-101", eval_folder).questions()}) > 1388


@pytest.mark.data
def test_published_answers_are_compared_with_a_baseline(data_folder, tmp_path):
    with judging() as url:
        (report,) = bench(
            data_folder / "eval", tmp_path / "out", url, set="vicuna-bench", mode="pairwise-baseline",
            models={"vicuna-13b": "vicuna-13b", "alpaca-13b": "alpaca-13b"},
        )  # fmt: skip
    assert report.mode == "pairwise-baseline_gpt-3.5-turbo"
    assert {found.model: found.wins + found.losses + found.ties for found in report.compared} == {
        "vicuna-13b": 80,
        "alpaca-13b": 80,
    }
