"""What goes wrong around a judge: keys, contexts, files and names; refused early, recorded, never mixed or dropped."""

import os

import pytest
from aiohttp import web
from judge_files import Judge, bench, data_folder, judging, rows, serving, write_lines

from selfplay import app
from selfplay.errors import BackendError, ConfigError, DataError, ModelError
from selfplay.recipe import validated
from selfplay.serve.scripted_server import ScriptedServer


@pytest.fixture
def data(tmp_path):
    return data_folder(tmp_path / "data")


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
    from bench.assistant.report import notes

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
    from bench.assistant.jsonl import open_locked

    with (
        judging() as url,
        open_locked(tmp_path / "out/mt_bench/model_answer/m.jsonl"),
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
