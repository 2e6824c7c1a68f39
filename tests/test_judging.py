"""`selfplay bench mt-bench` against a server that answers and judges: faults, kills, refusals, FastChat's reader."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from aiohttp import web
from judge_files import Judge, data_folder, judging, serving, write_lines
from score_files import run

from selfplay import app
from selfplay.config import validated
from selfplay.errors import BackendError, ConfigError, DataError, ModelError
from selfplay.serve.scripted_server import ScriptedServer

FAST = {"timeout": 0.5, "first_delay": 0.01}


def bench(data, out, url, *, say=lambda line: None, dry_run=False, **settings):
    values = {"set": "mt-bench", "data": str(data), "models": {"m": url}, "judge": url, **settings}
    values.setdefault("endpoint", FAST)
    values.setdefault("judge_endpoint", FAST)
    return app.bench_questions(validated(app.JudgeConfig, values, "test"), out, say=say, dry_run=dry_run)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


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


# Faults and bad input


def test_a_judge_that_refuses_the_key_ends_the_run_and_says_which_variable(data, tmp_path):
    class Closed(ScriptedServer):
        async def _handle(self, request):
            if "Bearer secret" not in request.headers.get("Authorization", ""):
                return web.Response(status=401, text="no key")
            return await super()._handle(request)

    with judging() as model, serving(Closed(reply=Judge())) as url:
        with pytest.raises(
            BackendError, match=r"answers 401 .*check address, model name and key \(\$SELFPLAY_JUDGE_KEY"
        ):
            bench(data, tmp_path / "out", url, models={"m": model})
        os.environ["SELFPLAY_JUDGE_KEY"] = "secret"
        try:
            (report,) = bench(data, tmp_path / "out", url, models={"m": model})
        finally:
            del os.environ["SELFPLAY_JUDGE_KEY"]
    assert report.unjudged == {}


def test_what_is_too_long_for_the_judge_is_recorded_not_cut(data, tmp_path):
    class Short(ScriptedServer):
        async def _handle(self, request):
            body = await request.json()
            if "Question 3" in body["messages"][-1]["content"]:
                return web.Response(status=400, text="maximum context length is 8 tokens")
            return await super()._handle(request)

    with judging() as model, serving(Short(reply=Judge())) as url:
        (report,) = bench(data, tmp_path / "out", url, models={"m": model})
    assert report.unjudged == {"too_long": 2}


def test_what_the_server_said_stays_with_what_failed(data, tmp_path):
    class Strict(ScriptedServer):
        async def _handle(self, request):
            return web.Response(status=400, text="use max_completion_tokens")

    with judging() as model, serving(Strict()) as url:
        (report,) = bench(data, tmp_path / "out", url, models={"m": model})
    assert report.unjudged == {"failed:http_400": 16}
    judgments = rows(tmp_path / "out/mt_bench/model_judgment/scripted_single.jsonl")
    assert all("use max_completion_tokens" in row["detail"] for row in judgments)


def test_what_cannot_be_judged_is_found_before_anything_is_answered(data, tmp_path):
    judge = Judge()
    write_lines(data / "mt_bench/reference_answer/gpt-4.jsonl", [{"question_id": 99, "text": "x"}])
    with judging(judge) as url:
        with pytest.raises(DataError, match=r"question 1 \(math\): no reference answer"):
            bench(data, tmp_path / "out", url)
        with pytest.raises(BackendError, match="cannot list models"):
            bench(
                data,
                tmp_path / "out",
                url,
                judge="http://127.0.0.1:9/v1",
                reference=False,
                judge_endpoint={"attempts": 1},
            )
    assert judge.asked.total() == 0


def test_rows_of_which_nobody_knows_what_made_them_are_kept_and_named(data, tmp_path):
    lines = []
    answer = {"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["by hand", "too"]}]}
    write_lines(tmp_path / "out/mt_bench/model_answer/m.jsonl", [answer])
    with judging() as url:
        bench(data, tmp_path / "out", url, say=lines.append, judge=None)
    assert any("1 rows were in" in line and "what made them is not known" in line for line in lines)
    assert rows(tmp_path / "out/mt_bench/model_answer/m.jsonl")[0]["choices"][0]["turns"][0] == "by hand"


def test_a_report_says_which_questions_have_no_judgment(data, tmp_path):
    from bench.judgement.report import notes

    with judging() as url:
        bench(data, tmp_path / "out", url)
    path = tmp_path / "out/mt_bench/model_judgment/scripted_single.jsonl"
    write_lines(path, rows(path)[:3])
    write_lines(path.with_name("notes.jsonl"), [{"of": "somebody"}])  # no judgments, left alone
    (report,) = app.report_judgments(tmp_path / "out")
    assert "NOT WHOLE: 5 of 8 questions have no judgment" in notes(report)
    assert report.graded[0].overall.n == 3
    stale = {**rows(path)[0], "score": -1, "cause": "unparsed"}
    write_lines(path, [stale, *rows(path)])  # judged again later, killed before it was arranged
    (report,) = app.report_judgments(tmp_path / "out")
    assert (report.judgments, report.unjudged) == (3, {})
    write_lines(path, [{**rows(path)[1], "score": None}])
    with pytest.raises(DataError, match=r"scripted_single.jsonl:1: no judgment of FastChat's layout: score None"):
        app.report_judgments(tmp_path / "out")


def test_published_answers_whose_copying_was_cut_short_are_completed(data, tmp_path):
    published = [{"question_id": n, "text": f"said {n}"} for n in range(1, 9)]
    write_lines(data / "mt_bench_answers_gpt4o.jsonl", published)
    with judging() as url:
        bench(data, tmp_path / "out", url, models={"gpt-4o": "gpt-4o"})
        path = tmp_path / "out/mt_bench/model_answer/gpt-4o.jsonl"
        write_lines(path, rows(path)[:3])
        bench(data, tmp_path / "out", url, models={"gpt-4o": "gpt-4o"})
    assert len(rows(path)) == 8


def test_a_judge_keeps_its_most_requests_at_once_whatever_else_is_set():
    config = validated(app.JudgeConfig, {"set": "mt-bench", "judge": "x", "judge_endpoint": {"model": "y"}}, "test")
    assert config.judge_endpoint.max_concurrency == 64


def test_two_runs_do_not_write_one_file(data, tmp_path):
    from bench.judgement.rows import hold

    with (
        judging() as url,
        hold(tmp_path / "out/mt_bench/model_answer/m.jsonl"),
        pytest.raises(ConfigError, match="another run writes"),
    ):
        bench(data, tmp_path / "out", url)


def test_questions_without_a_second_turn_foreign_answers_and_unknown_categories_are_said(tmp_path):
    data, lines = data_folder(tmp_path / "data"), []
    odd = [{"question_id": n, "category": "odd", "turns": ["a?", "b?"][:n]} for n in (1, 2)]
    write_lines(data / "mt_bench/question.jsonl", odd)
    other = [{"question_id": 9, "model_id": "other", "choices": [{"index": 0, "turns": ["x"]}]}]
    write_lines(tmp_path / "out/mt_bench/model_answer/other.jsonl", other)
    with judging() as url:
        (report,) = bench(data, tmp_path / "out", url, models={"m": url, "other": "other"}, say=lines.append)
    assert "no temperature for odd: 0.7 is taken" in lines
    assert "other: 2 questions have no answer and are not judged" in lines
    assert "other: 1 answers are to questions that are not in the set; left out" in lines
    assert "1 questions have no second turn; their first alone is judged" in lines
    assert report.judgments == 3


def test_models_that_are_nowhere_are_refused_before_anything_is_asked(data, tmp_path):
    with judging() as url:
        with pytest.raises(ModelError, match="'nowhere' is no model folder and no URL"):
            bench(data, tmp_path / "out", url, models={"m": "nowhere"})
        with pytest.raises(ModelError, match=r"gpt-3\.5-turbo"):
            bench(data, tmp_path / "out", url, mode="pairwise-baseline")
        with pytest.raises(DataError, match="pairwise-all needs two models"):
            bench(data, tmp_path / "out", url, mode="pairwise-all")
    with pytest.raises(ConfigError, match="nothing to do"):
        validated(app.JudgeConfig, {"set": "mt-bench"}, "test")
    with pytest.raises(DataError, match="no judgments in it"):
        app.report_judgments(tmp_path)


# FastChat reads what we write, and we read what FastChat writes


def show_result(folder, name, mode, *arguments):
    """FastChat's own figures, as it prints them: model → numbers as text."""
    command = [sys.executable, "-m", "fastchat.llm_judge.show_result", "--mode", mode, "--bench-name", name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    parts = re.split(r"#{10} (.*) #{10}", done.stdout)
    tables = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    return {
        title: {
            line.split()[0]: [float(cell) for cell in line.split()[1:]] for line in text.splitlines() if figures(line)
        }
        for title, text in tables.items()
    }


def figures(line):
    return re.fullmatch(r"\S+(\s+[\d.]+)+", line.rstrip())


def hand_made(folder):
    """Judgments in FastChat's schema with ties, errors, scores of -1, halves, and rows that come twice."""
    singles = [
        {"question_id": n, "model": model, "judge": ["gpt-4", "single-v1"], "user_prompt": "p", "judgment": "j",
         "score": score, "turn": turn, "tstamp": 1.0}
        for model, shift in (("one", 0), ("two", 3), ("three", 5))
        for n in range(81, 95)
        for turn in (1, 2)
        for score in [-1 if (n + turn + shift) % 7 == 0 else (n * turn + shift) % 10 + 0.5 * (n % 2)]
    ]  # fmt: skip
    winners = ["model_1", "model_2", "tie", "error"]
    pairs = [
        {"question_id": n, "model_1": one, "model_2": two, "g1_winner": winners[(n + len(one)) % 4],
         "g2_winner": winners[(n // 2 + len(two)) % 4], "judge": ["gpt-4", "pair-v2"], "g1_user_prompt": "p",
         "g1_judgment": "j", "g2_user_prompt": "p", "g2_judgment": "j", "turn": 1, "tstamp": 1.0}
        for one, two in (("one", "two"), ("one", "three"), ("two", "three"))
        for n in range(81, 120)
    ]  # fmt: skip
    write_lines(folder / "mt_bench/model_judgment/gpt-4_single.jsonl", [*singles, singles[1]])
    write_lines(folder / "mt_bench/model_judgment/gpt-4_pair.jsonl", pairs)
    write_lines(folder / "mt_bench/set.json", [])
    (folder / "mt_bench/set.json").write_text(json.dumps({"title": "T", "categories": {}, "baseline": "two"}))


def same_figures(data):
    """Our reports of a FastChat folder against what FastChat prints of it, in all three modes."""
    reports = {report.mode: report for report in app.report_judgments(data / "mt_bench")}
    judge = next(iter(reports.values())).judge
    common = ["--judge-model", judge]
    theirs = show_result(data.parent, "mt_bench", "single", *common)
    for graded in reports["single"].graded:
        assert theirs["First turn"][graded.model] == [1, round(graded.turns[1].value, 6)]
        assert theirs["Second turn"][graded.model] == [2, round(graded.turns[2].value, 6)]
        assert theirs["Average"][graded.model] == [round(graded.overall.value, 6)]
    for mode, more in (("pairwise-all", []), ("pairwise-baseline", ["--baseline-model", "two"])):
        theirs = show_result(data.parent, "mt_bench", mode, *common, *more)[""]
        ours = reports["pairwise-baseline_two" if more else mode].compared
        assert {found.model for found in ours} == {*theirs}
        for found in ours:
            counts = [found.wins, found.losses, found.ties]
            rates = [round(rate.value, 6) for rate in (found.win_rate, found.loss_rate, found.adjusted)]
            assert theirs[found.model] == [*counts, *rates], mode
    return reports


def test_judgments_of_fastchats_schema_get_the_figures_fastchat_prints(tmp_path):
    hand_made(tmp_path / "data")
    reports = same_figures(tmp_path / "data")
    assert reports["single"].unjudged["not said"] > 0
    assert reports["pairwise-all"].unjudged["not said"] > 0


def test_fastchat_prints_our_figures_of_what_we_write(tmp_path):
    data, out = data_folder(tmp_path / "given", questions=20), tmp_path / "data"
    with judging(Judge(garbage=0.4)) as url:
        models = {"one": url, "two": url, "three": url}
        bench(data, out, url, models=models)
        bench(data, out, url, models=models, mode="pairwise-all", baseline="two")
    reports = same_figures(out)
    assert reports["single"].unjudged["unparsed"] > 0
    assert reports["pairwise-all"].unjudged["unparsed"] > 0
    assert (out / "mt_bench/report/scripted_pairwise-all_wins.svg").exists()


# The command


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
    from bench.judgement.sets import open_set

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
