"""Question sets, verdicts, standings and a judge's biases, each against a case worked out by hand."""

import json
import math

import pytest
from judge_files import data_folder, write_lines

from bench.assistant.answers import ERROR, Choice, answer_row, read_answers, unanswered
from bench.assistant.biases import judge_figures
from bench.assistant.jsonl import open_locked, read_rows
from bench.assistant.matches import plan_matches
from bench.assistant.sets import open_set, shipped_sets
from bench.assistant.standings import compare, failure_cause, grade, win_matrix
from bench.assistant.verdicts import RATING, RATINGS, WINNER, fill, rating_of, schema_of, winner_of
from bench.questions import read_questions
from selfplay.errors import ConfigError, DataError

# Question files


def test_a_question_has_fastchats_keys_and_may_name_its_temperature(tmp_path):
    row = {"question_id": 7, "category": "math", "turns": ["a?", "b?"], "required_temperature": 0.2}
    (question,) = read_questions(write_lines(tmp_path / "q.jsonl", [row]))
    assert (question.id, question.category, question.turns, question.temperature) == (7, "math", ("a?", "b?"), 0.2)


def test_arena_hard_alpaca_eval_and_mt_bench_101_are_read_by_their_keys(tmp_path):
    rows = [
        {"question_id": "x1", "category": "arena", "turns": [{"content": "hard?"}]},
        {"instruction": "do it", "dataset": "koala", "output": "done", "generator": "g"},
        {"task": "GR", "id": 3, "history": [{"user": "one", "bot": "1"}, {"user": "two", "bot": "2"}]},
    ]
    found = read_questions(write_lines(tmp_path / "q.jsonl", rows))
    assert [question.id for question in found] == ["x1", 2, "GR-3-1", "GR-3-2"]
    assert [question.turns for question in found] == [("hard?",), ("do it",), ("one",), ("two",)]
    assert found[3].history == (("one", "1"),)  # the given answer, not the model's own


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question_id": 1}', r"q.jsonl:2: no question: found the keys question_id; expected \{question_id, category"),
        ('{"question_id": 1, "turns": []}', r"q.jsonl:2: turns that are no texts"),
        ('{"question_id": 1, "turns": ["", "b"]}', r"q.jsonl:2: turns that are no texts"),
        ('{"turns": ["a"]}', r"q.jsonl:2: no question_id"),
        ('{"question_id": 1, "turns": ["a"], "required_temperature": "hot"}', r"q.jsonl:2: required_temperature 'hot'"),
        ('{"task": "GR", "id": 1, "history": []}', r"q.jsonl:2: history is no list"),
        ('{"task": "GR", "id": 1, "history": [{"user": null, "bot": ""}]}', r"q.jsonl:2: history is no list"),
        ('{"question_id": 0, "turns": ["again"]}', r"q.jsonl:2: question id 0 comes twice"),
        ("{oops", r"q.jsonl:2: not JSON"),
    ],
)
def test_a_malformed_question_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": 0, "turns": ["first"]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_questions(path)


# Sets


def test_every_shipped_set_is_read_and_keeps_fastchats_temperatures():
    sets = {name: open_set(name).set for name in shipped_sets()}
    assert list(sets) == ["alpaca-eval", "arena-hard", "mt-bench", "mt-bench-101", "vicuna-bench"]
    assert sets["mt-bench"].temperatures["stem"] == 0.1
    assert sets["mt-bench"].needs_reference == ("math", "reasoning", "coding")
    assert {found.name for found in sets.values()} >= {"mt_bench", "vicuna_bench"}  # FastChat's --bench-name


def test_files_are_found_in_fastchats_layout_or_by_the_sets_names_packed_or_not(tmp_path):
    files = open_set("mt-bench", str(data_folder(tmp_path / "data")))
    assert len(files.questions()) == 8
    assert files.judge_prompts()["pair-v2"]["output_format"] == "[[A]]"
    own = tmp_path / "own.yaml"
    own.write_text("name: mine\ntitle: Mine\nquestions: [q.jsonl]\n", encoding="utf-8")
    write_lines(tmp_path / "q.jsonl", [{"question_id": 1, "turns": ["a", "b", "c"]}])
    with pytest.raises(DataError, match="question 1: 3 turns; judge prompts know one or two"):
        open_set(str(own)).questions()


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SELFPLAY_BENCH_DATA", raising=False)
    with pytest.raises(ConfigError, match="neither a YAML file nor one of alpaca-eval, arena-hard"):
        open_set("mt-bank")
    with pytest.raises(DataError, match="no such folder"):
        open_set("mt-bench", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no questions .* in .*; name FastChat's data folder with --data"):
        open_set("vicuna-bench", str(tmp_path)).questions()
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: a/b\ntitle: B\nquestions: [q]\nbasline: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)bad.yaml cannot be used:.*name: .*basline: Extra"):
        open_set(str(bad))


# Verdicts


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[5]]", 5),
        ("[[7.5]]", 7.5),
        ("I say [8] of ten", 8),  # FastChat's second pattern
        ("first [3], then [[4]]", 4),  # double brackets win
        ('{"explanation": "good [[2]]", "rating": 9}', 9),
        ("[[0]]", None),
        ("[[85]]", None),  # no rating of 1 to 10
        ("[[]]", None),
        ("five", None),
        ('{"rating": true}', None),
        ("", None),
    ],
)
def test_ratings_are_read_as_fastchat_reads_them(text, rating):
    assert rating_of(text) == rating
    assert type(rating_of(text)) is type(rating)


@pytest.mark.parametrize(
    ("text", "format", "winner"),
    [
        ("so [[A]]", WINNER, "A"),
        ("[[B]]", WINNER, "B"),
        ("[[C]]", WINNER, "tie"),
        ("[[A]] or [[B]]", WINNER, "A"),  # FastChat looks for A first
        ("A", WINNER, None),
        ('{"winner": "tie"}', WINNER, "tie"),
        ("[[8,7.95]]", RATINGS, "tie"),  # within 0.1
        ("[[8, 7]]", RATINGS, "A"),
        ("[6,7]", RATINGS, "B"),
        ("none", RATINGS, None),
    ],
)
def test_winners_are_read_as_fastchat_reads_them(text, format, winner):
    assert winner_of(text, format) == winner


def test_texts_in_a_prompt_stay_text():
    assert (
        fill("Q: {question} A: {answer}", {"question": "{answer} {0}", "answer": "{x!r}"}) == "Q: {answer} {0} A: {x!r}"
    )
    for template in ("{question.__class__}", "{question!r}", "{other}", "{}"):
        with pytest.raises(DataError, match="cannot fill"):
            fill(template, {"question": "q"})


def test_structured_verdicts_follow_a_schema():
    assert schema_of(RATING)["properties"]["rating"] == {"type": "integer", "enum": list(range(1, 11))}
    assert list(schema_of(WINNER)["properties"]) == ["explanation", "winner"]  # reasons come before the verdict
    with pytest.raises(DataError, match="no structured form"):
        schema_of(RATINGS)


# Files


def test_half_a_row_of_a_killed_writer_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    with open_locked(path) as file:
        file.append({"a": 3})
    assert read_rows(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_file_has_one_writer(tmp_path):
    with (
        open_locked(tmp_path / "rows.jsonl"),
        pytest.raises(ConfigError, match="another run writes"),
        open_locked(tmp_path / "rows.jsonl"),
    ):
        pass


def test_a_last_row_without_its_newline_is_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    with open_locked(path) as file:
        file.append({"a": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'


def test_a_file_stays_held_and_growing_after_its_rows_were_arranged(tmp_path):
    path = tmp_path / "rows.jsonl"
    with open_locked(path) as file:
        for number in (2, 1, 2):
            file.append({"a": number})
        file.sort_and_dedup(lambda row: row["a"], lambda row: row["a"])
        with pytest.raises(ConfigError, match="another run writes"), open_locked(path):
            pass
        file.append({"a": 3})
    assert read_rows(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_broken_row_is_named_by_its_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n[1]\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl:2: expected an object, found list"):
        read_rows(tmp_path / "rows.jsonl")


def test_answers_are_written_as_fastchat_writes_them_and_read_back(tmp_path):
    failed = Choice((ERROR, ERROR), {1: "context_full", 2: "no_first_answer"})
    row = answer_row(3, "m", [Choice(("one", "two"), cut=(2,)), failed])
    assert list(row) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    path = write_lines(tmp_path / "m.jsonl", [row])
    assert read_answers(path) == {3: [Choice(("one", "two"), {}, (2,)), failed]}


def test_answers_of_the_first_vicuna_bench_and_of_alpaca_eval_are_read_too(tmp_path):
    questions = read_questions(write_lines(tmp_path / "q.jsonl", [{"instruction": "do it", "dataset": "x"}]))
    rows = [{"question_id": 1, "text": "said", "answer_id": "a"}]
    assert read_answers(write_lines(tmp_path / "v.jsonl", rows)) == {1: [Choice(("said",))]}
    rows = [{"instruction": "do it", "output": "done"}, {"instruction": "not asked", "output": "no"}]
    assert read_answers(write_lines(tmp_path / "a.jsonl", rows), questions) == {1: [Choice(("done",))]}


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1},
        {"question_id": 1, "choices": []},
        {"question_id": 1, "choices": [{"turns": "hello"}]},
        {"question_id": 1, "choices": [{"turns": [None]}]},
        {"question_id": 1, "choices": [{"turns": ["a"], "errors": {"x": "y"}}]},
    ],
)
def test_what_is_no_answer_is_named_by_its_line(tmp_path, row):
    good = answer_row(0, "m", [Choice(("fine",))])
    with pytest.raises(DataError, match=r"n.jsonl:2: no answer"):
        read_answers(write_lines(tmp_path / "n.jsonl", [good, row]))


def test_what_failed_for_a_cause_that_may_pass_is_owed_again(tmp_path):
    questions = read_questions(
        write_lines(tmp_path / "q.jsonl", [{"question_id": n, "turns": ["?"]} for n in range(4)])
    )
    known = {
        0: [Choice(("fine",))],
        1: [Choice((ERROR,), {1: "context_full"})],
        2: [Choice((ERROR,), {1: "failed:timeout"})],
    }
    assert [question.id for question in unanswered(questions, known, 1)] == [2, 3]
    assert [question.id for question in unanswered(questions, known, 2)] == [0, 1, 2, 3]


# Matches


def planned(tmp_path, mode="single", answers=None, references=True, **options):
    files = open_set("mt-bench", str(data_folder(tmp_path / "data", questions=4, **options)))
    questions = files.questions()
    said = {q.id: [Choice(tuple(f"said {turn}" for turn in q.turns))] for q in questions}
    known = read_answers(files.find(files.set.references, "references")) if references else None
    return plan_matches(
        files.set, questions, answers or {"one": said, "two": said}, known, files.judge_prompts(), mode, "two"
    )


def test_single_grading_asks_for_every_turn_with_the_reference_where_fastchat_shows_it(tmp_path):
    matches = planned(tmp_path, answers=None).matches
    assert len(matches) == 2 * 4 * 2
    prompts = {(match.question, match.turn): match.prompt for match in matches}
    assert prompts[1, 1] == "single-math-v1"
    assert prompts[2, 2] == "single-math-v1-multi-turn"
    assert prompts[3, 1] == "single-v1"
    assert prompts[4, 2] == "single-v1-multi-turn"
    (match,) = [match for match in matches if (match.question, match.turn, match.models) == (1, 2, ("one",))]
    assert "ref_answer_2: Reference 1, 2." in match.asked[0]
    assert "answer_2: said Question 1, turn 2?" in match.asked[0]
    assert {match.prompt for match in planned(tmp_path, references=False).matches} == {
        "single-v1",
        "single-v1-multi-turn",
    }


def test_pairs_are_asked_in_both_orders(tmp_path):
    one, two = ({n: [Choice((f"{name} {n}", f"{name} {n} again"))] for n in range(1, 5)} for name in ("one", "two"))
    matches = planned(tmp_path, "pairwise-baseline", {"one": one, "two": two}).matches
    assert {match.models for match in matches} == {("one", "two")}
    first = next(match for match in matches if (match.question, match.turn) == (3, 1))
    assert "answer_a: one 3\nanswer_b: two 3" in first.asked[0]
    assert "answer_a: two 3\nanswer_b: one 3" in first.asked[1]
    every = planned(tmp_path, "pairwise-all", {"one": one, "two": two, "three": one}).matches
    assert {match.models for match in every} == {("one", "two"), ("one", "three"), ("two", "three")}


def test_what_cannot_be_judged_is_counted_not_dropped(tmp_path):
    said = {1: [Choice(("a", ERROR), {2: "context_full"})], 2: [Choice(("only one",))], 99: [Choice(("x", "y"))]}
    found = planned(tmp_path, answers={"one": said})
    assert (found.missing["one"], found.foreign["one"]) == (2, 1)
    causes = {(match.question, match.turn): match.unanswered for match in found.matches}
    assert causes == {(1, 1): None, (2, 1): None, (1, 2): "context_full", (2, 2): "no_answer"}


def test_a_question_without_a_reference_answer_is_an_error_with_a_way_out(tmp_path):
    data = data_folder(tmp_path / "data", questions=4)
    files = open_set("mt-bench", str(data))
    said = {n: [Choice(("a", "b"))] for n in range(1, 5)}
    with pytest.raises(DataError, match=r"question 1 \(math\): no reference answer; .*--no-reference"):
        plan_matches(files.set, files.questions(), {"m": said}, {}, files.judge_prompts(), "single")


# Standings


def single(question, score, model="m", turn=1, **more):
    return {"question_id": question, "model": model, "judge": ["j", "p"], "score": score, "turn": turn, **more}


def pair(question, first, second, one="a", other="b", **more):
    row = {"question_id": question, "model_1": one, "model_2": other, "g1_winner": first, "g2_winner": second}
    return {**row, "judge": ["j", "p"], "turn": 1, **more}


def test_scores_are_means_without_what_has_no_verdict_which_is_counted():
    rows = [single(1, 8), single(1, 4, turn=2), single(2, 6), single(2, -1, turn=2, cause="unparsed"), single(3, -1)]
    (found,) = grade(rows, {"1": "math", "2": "writing"})
    assert found.overall.value == pytest.approx((8 + 4 + 6) / 3)
    assert found.overall.n == 2  # questions, not rows
    assert found.turns[1].value == 7
    assert found.turns[2].value == 4
    assert found.categories["math"].value == 6
    assert found.unjudged == {"unparsed": 1, "not said": 1}
    assert found.overall.low <= found.overall.value <= found.overall.high


def test_a_model_without_any_verdict_comes_last_and_has_no_score():
    best, none = grade([single(1, -1, "none"), single(1, 2, "some")], {})
    assert (best.model, none.model, none.overall) == ("some", "none", None)


def test_games_whose_orders_disagree_are_ties():
    rows = [
        pair(1, "model_1", "model_1"),
        pair(2, "model_1", "model_2"),  # the first position each time: inconsistent
        pair(3, "tie", "tie"),
        pair(4, "model_1", "tie"),
        pair(5, "model_2", "model_2"),
        pair(6, "error", "model_1", cause="unparsed"),
    ]
    a, b = compare(rows, {})
    assert (a.wins, a.losses, a.ties) == (1, 1, 3)
    assert (b.wins, b.losses, b.ties) == (1, 1, 3)
    assert a.adjusted.value == b.adjusted.value == 0.5
    assert a.win_rate.value == pytest.approx(0.2)
    assert a.unjudged == {"unparsed": 1}
    assert failure_cause(pair(6, "error", "tie")) == "not said"


def test_against_a_baseline_its_own_line_is_left_out():
    rows = [pair(1, "model_1", "model_1"), pair(1, "model_2", "model_2", "a", "c"), pair(1, "tie", "tie", "b", "c")]
    assert [(found.model, found.wins, found.losses) for found in compare(rows, {}, "b")] == [("a", 1, 0), ("c", 0, 0)]
    matrix = win_matrix(rows)
    assert (matrix["a", "b"].value, matrix["b", "a"].value, matrix["c", "a"].value) == (1, 0, 1)
    assert matrix["b", "c"].value == 0.5


# The judge


def test_position_and_length_and_order_agreement():
    answers = {"a": {1: [Choice(("a long answer",))], 2: [Choice(("short",))]},
               "b": {1: [Choice(("short",))], 2: [Choice(("a long answer",))]}}  # fmt: skip
    rows = [pair(1, "model_1", "model_1"), pair(2, "model_1", "model_2")]
    found = judge_figures(rows, answers)
    assert found["same verdict, orders"].value == 0.5
    assert found["first position wins, where one does"].value == pytest.approx(3 / 4)  # of single orders
    assert found["longer answer wins, where one does"].value == 1.0
    assert found["longer answer wins, where one does"].n == 1


def test_agreement_of_repeats_is_the_share_of_equal_pairs():
    rows = [single(1, 5, repeats=[[5, 5, 6]]), single(2, 4, repeats=[[4, None, 4]])]
    found = judge_figures(rows, {})["same verdict, repeats"]
    assert found.value == pytest.approx((1 + 1) / 4)  # of four pairs
    assert "same verdict, repeats" not in judge_figures([single(1, 5, repeats=[[5, None, None]])], {})


def test_a_judge_that_likes_length_is_seen_in_the_rank_correlation():
    answers = {"m": {n: [Choice(("word " * n,))] for n in range(1, 7)}}
    rows = [single(n, 1 + n) for n in range(1, 7)]
    assert judge_figures(rows, answers)["score and length, rank correlation"].value == pytest.approx(1.0)
    rows = [single(n, 8 - n) for n in range(1, 7)]
    assert judge_figures(rows, answers)["score and length, rank correlation"].value == pytest.approx(-1.0)
    assert "score and length, rank correlation" not in judge_figures([single(n, 5) for n in range(1, 7)], answers)


def test_intervals_are_over_questions_not_over_rows():
    """Many rows of one question are no more certain than the question."""
    rows = [single(1, 2, choice=n) for n in range(50)] + [single(2, 8, choice=n) for n in range(50)]
    (found,) = grade(rows, {})
    assert (found.overall.low, found.overall.high, found.overall.n) == (2, 8, 2)
    assert math.isclose(found.overall.value, 5)
    assert json.dumps(found.unjudged) == "{}"
