"""`selfplay bench mt-bench` against a server that answers and judges: files, faults of every kind, kills, repeats."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from aiohttp import web
from judge_files import FAST, Judge, bench, data_folder, judging, rows, serving, write_lines

from selfplay.errors import ConfigError
from selfplay.serve.scripted_server import ScriptedServer


@pytest.fixture
def data(tmp_path):
    return data_folder(tmp_path / "data")


def test_every_question_is_answered_judged_and_reported_in_fastchats_files(data, tmp_path):
    with judging() as url:
        (report,) = bench(data, tmp_path / "out", url)
    folder = tmp_path / "out/mt_bench"
    answers = rows(folder / "model_answer/m.jsonl")
    assert [row["question_id"] for row in answers] == list(range(1, 9))
    assert list(answers[0]) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    judgments = rows(folder / "model_judgment/scripted_single.jsonl")
    keys = ["question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"]
    assert all(list(row) == keys for row in judgments)
    assert len(judgments) == 16
    assert report.graded[0].overall.value == pytest.approx(sum(row["score"] for row in judgments) / 16)
    written = json.loads((folder / "report/scripted_single.json").read_text())
    assert written["graded"][0]["overall"]["n"] == 8
    for ending in ("radar.png", "radar.svg", "bars.png", "bars.svg"):
        assert (folder / f"report/scripted_single_{ending}").stat().st_size > 1000
    assert "question" not in (folder / "set.json").read_text()  # categories, no question


def test_the_second_turn_is_asked_after_the_models_own_first_answer(data, tmp_path):
    judge = Judge()
    with judging(judge) as url:
        bench(data, tmp_path / "out", url, judge=None)
    said = rows(tmp_path / "out/mt_bench/model_answer/m.jsonl")[0]["choices"][0]["turns"]
    assert said == ["An answer of 19 letters to Question 1, tu", "An answer of 19 letters to Question 1, tu"]
    assert judge.asked["", "Question 1, turn 2?"] == 1


def test_with_a_third_of_all_requests_failing_every_question_ends_judged_or_counted(tmp_path):
    data = data_folder(tmp_path / "data", questions=40)
    judge, lines = Judge(garbage=0.5), []
    with judging(judge, faults=0.3, stall=1.0) as url:
        (report,) = bench(data, tmp_path / "out", url, say=lines.append)
    judgments = rows(tmp_path / "out/mt_bench/model_judgment/scripted_single.jsonl")
    assert len(judgments) == 80
    unparsed = [row for row in judgments if row["score"] == -1]
    assert all(row["cause"] == "unparsed" and row["judgment"] == "I would rather not say." for row in unparsed)
    assert report.unjudged == ({"unparsed": len(unparsed)} if unparsed else {})
    assert 1 < len(unparsed) < 25  # 0.5 ** 3 of 80 are 10
    assert report.graded[0].overall.value == pytest.approx(
        sum(row["score"] for row in judgments if row["score"] != -1) / (80 - len(unparsed))
    )
    assert any(f"without a verdict {len(unparsed)}, unparsed {len(unparsed)}" in line for line in lines)


def test_killed_in_the_middle_and_started_again_nothing_that_was_done_is_asked_again(tmp_path):
    data = data_folder(tmp_path / "data", questions=40)
    judge, out = Judge(), tmp_path / "out"
    judgments = out / "mt_bench/model_judgment/scripted_single.jsonl"
    settings = ["--set", "judge_endpoint.max_concurrency=4", "--set", "endpoint.max_concurrency=4"]
    with judging(judge, latency=0.05) as url:
        command = [sys.executable, "-m", "selfplay.cli", "bench", "mt-bench", "--model", f"m={url}", "--judge", url,
                   "--data", data, "--out", out, *settings]  # fmt: skip
        for file, count in ((out / "mt_bench/model_answer/m.jsonl", 12), (judgments, 20)):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while not file.exists() or file.read_bytes().count(b"\n") < count:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            if file.name == "m.jsonl":
                answered = [row["question_id"] for row in rows(file)]
        done = {(row["question_id"], row["turn"]): row["user_prompt"] for row in rows(judgments)}
        before = judge.asked.copy()
        (report,) = bench(data, out, url)
    asked = judge.asked - before
    assert report.judgments == 80
    assert not [prompt for prompt in done.values() if asked["judge", prompt]]
    assert not [key for key in asked if key[0] == ""]  # all questions were answered before the second kill
    assert {judge.asked["", f"Question {number}, turn 2?"] for number in answered} == {1}
    assert len({(row["question_id"], row["turn"]) for row in rows(judgments)}) == len(rows(judgments)) == 80


def test_what_stayed_unparsed_is_asked_again_by_the_next_run_and_replaced(data, tmp_path):
    with judging(Judge(garbage=1.0)) as url:
        (report,) = bench(data, tmp_path / "out", url)
    assert report.unjudged == {"unparsed": 16}
    assert report.graded[0].overall is None
    with judging() as url:
        (report,) = bench(data, tmp_path / "out", url)
    assert (report.unjudged, report.judgments) == ({}, 16)


def test_repeated_verdicts_count_by_their_median_and_show_agreement(data, tmp_path):
    class Moody(Judge):
        def __call__(self, body):
            return "[[3]]" if body["seed"] % 2 else "[[9]]"

    with judging(Moody()) as url:
        (report,) = bench(data, tmp_path / "out", url, models={"m": url}, judge_repeats=3)
    for row in rows(tmp_path / "out/mt_bench/model_judgment/scripted_single.jsonl"):
        assert row["score"] == sorted(row["repeats"][0])[1]
    assert 0 < report.judge_figures["same verdict, repeats"].value < 1


def test_repeated_answers_are_judged_each(data, tmp_path):
    with judging() as url:
        (report,) = bench(data, tmp_path / "out", url, repeats=2)
    assert report.judgments == 32
    assert report.graded[0].overall.n == 8


def test_structured_verdicts_ask_for_json(data, tmp_path):
    class Strict(Judge):
        def __call__(self, body):
            rating = body["response_format"]["json_schema"]["schema"]["properties"]["rating"]
            self.asked[max(rating["enum"])] += 1
            return json.dumps({"explanation": "it says [[2]]", "rating": 7})

    judge = Strict()
    with judging() as model, judging(judge) as url:
        (report,) = bench(data, tmp_path / "out", url, models={"m": model}, structured=True)
    assert report.graded[0].overall.value == 7
    assert judge.asked[10] == 16


def test_a_dry_run_says_what_it_would_take_and_asks_nothing(data, tmp_path):
    judge, lines = Judge(), []
    with judging(judge) as url:
        bench(data, tmp_path / "out", url, judge=None)
        asked = judge.asked.total()
        prices = {**FAST, "input_price": 1000.0, "output_price": 2000.0}
        assert bench(data, tmp_path / "out", url, dry_run=True, judge_endpoint=prices, say=lines.append) == []
    assert judge.asked.total() == asked
    assert lines[0] == "m: 0 of 8 questions to answer"
    assert not (tmp_path / "out/mt_bench/model_judgment").exists()
    with judging(judge) as url:
        bench(data, tmp_path / "fresh", url, dry_run=True, say=lines.append)
    assert not (tmp_path / "fresh").exists()
    assert lines[2] == "m: 8 of 8 questions to answer"
    assert lines[3].startswith("16 verdicts to ask for: about ")
    assert judge.asked.total() == asked

    said = r"16 verdicts to ask for: about \d{3,} prompt tokens and 3,200 sampled ones, cost about 6\.\d\d"
    assert re.fullmatch(said, lines[1])


def test_answers_that_have_changed_are_judged_again(data, tmp_path):
    judge = Judge()
    with judging(judge) as url:
        bench(data, tmp_path / "out", url)
        path = tmp_path / "out/mt_bench/model_answer/m.jsonl"
        answers = rows(path)
        answers[2]["choices"][0]["turns"][1] = "Something else."
        write_lines(path, answers)
        asked = judge.asked.total()
        (report,) = bench(data, tmp_path / "out", url)
        assert judge.asked.total() - asked == 1  # its second turn alone
        (report,) = bench(data, tmp_path / "out", url, judge_repeats=3)
        assert judge.asked.total() - asked == 1 + 16 * 3
    assert report.judgments == 16


def test_other_settings_or_another_model_do_not_end_in_one_file(data, tmp_path):
    with judging() as url:
        bench(data, tmp_path / "out", url)
        with pytest.raises(ConfigError, match=r"m.jsonl was made with other settings: max_tokens: 1024 → 7"):
            bench(data, tmp_path / "out", url, max_tokens=7)
        with pytest.raises(ConfigError, match=r"scripted_single.jsonl was made with other .*structured: False → True"):
            bench(data, tmp_path / "out", url, structured=True)
        with pytest.raises(ConfigError, match=r"scripted_single.jsonl was made with other .*reference: True → False"):
            bench(data, tmp_path / "out", url, reference=False)
        prompts = rows(data / "judge_prompts.jsonl")
        write_lines(data / "judge_prompts.jsonl", [{**row, "system_prompt": "You judge well."} for row in prompts])
        with pytest.raises(ConfigError, match=r"made with other settings: prompts: "):
            bench(data, tmp_path / "out", url)


def test_answers_of_another_server_model_are_not_continued(data, tmp_path):
    class Other(ScriptedServer):
        async def _models(self, request):
            return web.json_response({"data": [{"id": "other"}]})

    with judging() as url, serving(Other(reply=Judge())) as other:
        bench(data, tmp_path / "out", url, judge=None)
        write_lines(
            tmp_path / "out/mt_bench/model_answer/m.jsonl", rows(tmp_path / "out/mt_bench/model_answer/m.jsonl")[:5]
        )
        with pytest.raises(ConfigError, match=r"model: scripted → other"):
            bench(data, tmp_path / "out", url, models={"m": other}, judge=None)


def test_a_pair_is_judged_once_whichever_way_round_it_is_asked_for(data, tmp_path):
    judge = Judge()
    with judging(judge) as url:
        models = {"a": url, "b": url, "c": url}
        (report,) = bench(data, tmp_path / "out", url, models=models, mode="pairwise-all")
        asked = judge.asked.total()
        turned = {"c": url, "b": url, "a": url}
        (report,) = bench(data, tmp_path / "out", url, models=turned, mode="pairwise-baseline", baseline="a")
        assert judge.asked.total() == asked
    assert [found.wins + found.losses + found.ties for found in report.compared] == [16, 16]


def test_two_models_of_which_one_is_the_baseline_have_both_reports(data, tmp_path):
    with judging() as url:
        models = {"a": url, "b": url}
        (report,) = bench(data, tmp_path / "out", url, models=models, mode="pairwise-all", baseline="b")
        assert {found.model for found in report.compared} == {"a", "b"}
        (report,) = bench(data, tmp_path / "out", url, models=models, mode="pairwise-baseline", baseline="b")
        assert {found.model for found in report.compared} == {"a"}
        assert report.compared[0].turns.keys() == {1, 2}
