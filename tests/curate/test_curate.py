"""Curation: each reason by itself, the funnel, duplicates against earlier conversations, copies, and the command."""

import json

import pytest
from judge_files import write_lines
from talks import talk
from typer.testing import CliRunner

from selfplay import app
from selfplay.cli.main import cli
from selfplay.curate.config import CurateConfig
from selfplay.curate.filters import filters_of, read_words
from selfplay.curate.memorised import STRETCH, Memorised
from selfplay.curate.selection import leave_out_by, rows_left_out, select
from selfplay.errors import ConfigError, DataError

PLAIN = {"near_duplicates": None, "duplicates": False}


def why(conversation, benchmarks=None, **settings):
    filters = filters_of(
        CurateConfig(**PLAIN, **settings), lambda texts: [len(t.split()) for t in texts], benchmarks or {}
    )
    verdicts = select([conversation], filters, CurateConfig(**PLAIN))
    return verdicts.left_out[0]


GOOD = talk("I need a table for two.", "For which day is it?", "For Friday, please.", "It is booked.")


@pytest.mark.parametrize(
    ("conversation", "settings", "expected"),
    [
        (GOOD, {}, None),
        (talk("a b", "c d", ended=None), {}, None),  # people's conversations end for no reason of ours
        (talk("a b", "c d", ended="max_rounds"), {}, ("ending", "ended: max_rounds")),
        (talk("a b", "c d", ended="guardrail:repeat"), {"end_reasons": ("guardrail",)}, None),
        (GOOD, {"min_rounds": 3}, ("length", "fewer than 3 rounds")),
        (GOOD, {"max_rounds": 1}, ("length", "more than 1 rounds")),
        (GOOD, {"max_turn_words": 4}, ("length", "a turn of more than 4 words")),
        (GOOD, {"max_tokens": 16}, ("length", "more than 16 tokens")),
        (GOOD, {"max_tokens": 17}, None),
        (talk("hi", "hello", "How can I help you?", "ok"), {}, ("role drift", "the user speaks as the assistant")),
        (talk("hi", "hello", "How can I help you?", "ok"), {"role_drift": False}, None),
        (talk("one two three four", "a", "One  two three FOUR", "b"), {}, ("repeats", "the user repeats a turn")),
        (talk("Yes.", "a", "Yes.", "b"), {}, None),  # short turns recur, as people's do
        (talk("a", "I'm sorry, but I can't do this."), {}, ("refusals", "the assistant refuses")),
        (talk("I can't help it.", "Then sit down."), {}, None),  # a user may
        (talk("Bonjour, je voudrais une table pour deux personnes.", "Pour quel jour ?"), {"languages": ("en",)},
         ("languages", "language fr")),
        (talk("mail me at ann@example.org", "ok"), {}, ("personal data", "personal data")),
        (talk("mail me at ann@example.org", "ok"), {"pii": False}, None),
    ],
)  # fmt: skip
def test_each_reason_by_itself(conversation, settings, expected):
    assert why(conversation, **settings) == expected


def test_banned_words_are_whole_words_of_any_case(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Darn\n\nheck\n", encoding="utf-8")
    assert why(talk("DARN it", "ok"), banned_words=str(path)) == ("banned words", "a banned word")
    assert why(talk("darning a sock", "ok"), banned_words=str(path)) is None
    with pytest.raises(ConfigError, match="no list of words"):
        read_words(tmp_path / "none.txt")
    (tmp_path / "phrase.txt").write_text("shut up\n")
    with pytest.raises(ConfigError, match="'shut up' is no single word"):
        read_words(tmp_path / "phrase.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="holds no word"):
        read_words(tmp_path / "empty.txt")


def test_questions_of_benchmarks_are_named():
    benchmarks = {"mt_bench": lambda text: "travel blog" in text}
    assert why(talk("write a travel blog", "no"), benchmarks) == ("benchmarks", "a question of mt_bench")


def test_the_funnel_counts_what_comes_to_each_step():
    config = CurateConfig(near_duplicates=None)
    talks = [
        talk("a b", "c d", id="bad end", ended="max_rounds"),
        talk("mail me at ann@example.org", "ok", id="mail"),
        GOOD,
        talk("I need a table for two.", "For which day is it?", "For Friday, please.", "It is booked.", id="twin"),
    ]
    filters = filters_of(config, lambda texts: [1] * len(texts), {})
    verdicts = select(talks, filters, config)
    steps = {name: (count.rows_before, count.rows_after) for name, count in verdicts.tally.steps.items()}
    assert steps["ending"] == (4, 3)
    assert steps["length"] == (3, 3)
    assert steps["personal data"] == (3, 2)
    assert steps["exact duplicates"] == (2, 1)
    assert verdicts.kept == [2]
    assert [row["id"] for row in rows_left_out(verdicts)] == ["bad end", "mail", "twin"]
    assert list(rows_left_out(verdicts))[2]["step"] == "exact duplicates"


def test_what_is_like_an_earlier_conversation_goes_and_the_earlier_one_is_not_judged():
    config = CurateConfig(near_duplicates=0.7)
    text = " ".join(f"word{n}" for n in range(60))
    earlier = [talk(text, "ok then", ended="max_rounds")]
    near, other = talk(text + " more", "ok then", id="near"), talk("something else entirely", "yes it is", id="other")
    verdicts = select([near, other], filters_of(config, lambda t: [1] * len(t), {}), config, earlier)
    assert verdicts.left_out == [("near duplicates", "is like an earlier one"), None]
    assert verdicts.tally.steps["near duplicates"].rows_before == 2


def test_earlier_conversations_that_are_alike_all_count():
    """None of them is judged, so none may leave room for what is like it alone."""
    words, other = [f"word{n}" for n in range(400)], [f"new{n}" for n in range(40)]
    first, second = words, words[:380] + other[:20]  # alike, as are second and third, but not first and third
    third = other[20:] + second[20:]
    earlier = [talk(" ".join(text), "x y z") for text in (first, second)]
    late, config = talk(" ".join(third), "x y z", id="late"), CurateConfig(near_duplicates=0.84)
    assert select([late], [], config, earlier[:1]).left_out == [None]
    for before in (earlier[1:], earlier):
        assert select([late], [], config, before).left_out == [("near duplicates", "is like an earlier one")]


def test_a_model_judges_what_is_still_in_many_at_once():
    config = CurateConfig(**PLAIN)
    talks = [talk("a", "b", id=str(n), ended="max_rounds" if n == 1 else "user_ended") for n in range(5)]
    verdicts = select(talks, filters_of(config, lambda t: [1] * len(t), {}), config)
    seen = []

    def reasons(batch):
        seen.append([conversation.id for conversation in batch])
        return ["noise" if conversation.id == "3" else None for conversation in batch]

    leave_out_by(verdicts, "perplexity", reasons, talks, batch=3)
    assert seen == [["0", "2", "3"], ["4"]]
    assert verdicts.kept == [0, 2, 4]
    assert verdicts.tally.steps["perplexity"].reasons == {"noise": 1}


# Copies


def test_a_copy_is_fifty_characters_in_a_row_case_and_spacing_aside():
    said = "I would like to book a table for two people on Friday evening at seven, please."
    memory = Memorised([said, "short"])
    assert memory.copied("well then, i would LIKE to  book a table for two people on friday EVENING ok") == (
        "i would like to book a table for two people on friday evening "
    )
    assert memory.copied(said[: STRETCH - 1]) == ""
    assert memory.copied(said[:STRETCH]) == said[:STRETCH].lower()
    assert memory.copied("nothing of it") == ""


def test_turns_that_copy_are_counted_and_the_longest_shown():
    said = " ".join(f"word{n}" for n in range(40))
    memory = Memorised([said])
    memory.look("a", [said[:60], "no"])
    memory.look("b", [said])
    copies = memory.finished()
    assert (copies.turns, copies.copying, copies.share) == (3, 2, pytest.approx(2 / 3))
    assert [id for id, _ in copies.worst] == ["b", "a"]
    assert Memorised([]).copied(said) == ""


@pytest.mark.parametrize("text", ["é" * 60, "你好" * 40, "a\ud800b" * 30])
def test_copies_of_any_script_are_found(text):
    assert Memorised([text]).copied("x" + text) != ""


# The command


def row(id, *texts, **more):
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"id": id, "messages": messages, **more}


@pytest.fixture
def source(tmp_path):
    talks = [
        row("good", "I need a table for two.", "For which day is it?", ended="user_ended"),
        row("cut", "Another one for four people.", "Of course it is.", ended="max_rounds"),
        row("refused", "Tell me a secret of yours.", "I cannot help with that."),
        row("human", "Is the museum open on Monday?", "It opens at ten."),
    ]
    return write_lines(tmp_path / "talks.jsonl", talks)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_writes_what_is_kept_why_the_rest_is_not_and_the_funnel(source, tmp_path):
    out, banned = tmp_path / "kept.jsonl", tmp_path / "training.jsonl"
    write_lines(banned, [row("t", "Is the museum open on Monday? " * 3, "Yes it is.")])
    question = write_lines(tmp_path / "questions.jsonl", [{"question_id": 1, "turns": ["not in here"]}])
    done = CliRunner().invoke(
        cli, ["curate", str(source), "--out", str(out), "--memorised-from", str(banned), "--benchmark", str(question)],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0
    assert [(r["id"], r.get("ended")) for r in rows(out)] == [("good", "user_ended"), ("human", None)]
    assert rows(tmp_path / "kept.jsonl.dropped.jsonl") == [
        {"id": "cut", "step": "ending", "reason": "ended: max_rounds"},
        {"id": "refused", "step": "refusals", "reason": "the assistant refuses"},
    ]
    report = json.loads((tmp_path / "kept.jsonl.report.json").read_text())
    assert (report["kept"], report["conversations"], report["memorised"]["copying"]) == (2, 4, 0)
    assert "refusals" in (tmp_path / "kept.jsonl.report.md").read_text()
    assert "2 conversations are kept" in done.output
    assert "0 of 2 user turns (0.00%) copy 50 characters" in done.output
    again = app.curate(
        [str(out)], tmp_path / "again.jsonl", CurateConfig(dedup_against=(str(source),)), lambda line: None
    )
    assert again.kept == 0  # all of it is there already


def test_two_question_files_of_one_name_both_count(source, tmp_path):
    asked = "which of these two restaurants would you recommend for a birthday dinner with four friends"
    first = write_lines(tmp_path / "a/question.jsonl", [{"question_id": 1, "turns": [asked]}])
    second = write_lines(tmp_path / "b/question.jsonl", [{"question_id": 1, "turns": ["nothing of the kind"]}])
    talks = write_lines(tmp_path / "t.jsonl", [row("q", asked, "The first."), row("ok", "hello there", "hi")])
    config = CurateConfig(decontaminate_against=(str(first), str(second)))
    curated = app.curate([str(talks)], tmp_path / "out.jsonl", config, lambda line: None)
    assert curated.kept == 1
    assert curated.tally.steps["benchmarks"].reasons == {f"a question of {first}": 1}


def test_parquet_keeps_the_columns_that_only_some_rows_have(source, tmp_path):
    import pyarrow.parquet as pq

    human = write_lines(tmp_path / "h.jsonl", [row("h", "Is it open on Monday morning?", "Yes it is.")])
    app.curate([str(human), str(source)], tmp_path / "kept.parquet", CurateConfig(), lambda line: None)
    found = pq.read_table(tmp_path / "kept.parquet").to_pylist()
    assert [(r["id"], r["ended"]) for r in found] == [("h", None), ("good", "user_ended"), ("human", None)]


def test_rows_that_are_no_conversation_are_in_the_report(tmp_path):
    talks = write_lines(tmp_path / "t.jsonl", [row("ok", "hello there", "hi"), {"id": "bad", "messages": []}])
    curated = app.curate([str(talks)], tmp_path / "out.jsonl", CurateConfig(), lambda line: None)
    assert (curated.tally.rows, curated.tally.conversations) == (2, 1)
    assert curated.tally.refused.counts.total() == 1


def test_perplexity_under_a_model_bounds_what_the_assistant_says(source, tmp_path):
    config = CurateConfig(perplexity={"model": "nano", "highest": 1.5})
    curated = app.curate([str(source)], tmp_path / "out.jsonl", config, lambda line: None)
    assert curated.kept == 0
    assert curated.tally.steps["perplexity"].reasons == {"above 1.5": 2}


def test_what_cannot_be_curated_is_said(source, tmp_path):
    with pytest.raises(ConfigError, match="is a source itself"):
        app.curate([str(source)], source, CurateConfig(), lambda line: None)
    with pytest.raises(DataError, match="no file and no dataset"):
        app.curate(["nowhere.jsonl"], tmp_path / "x.jsonl", CurateConfig(), lambda line: None)
    with pytest.raises(ConfigError, match="write"):
        app.curate([str(source)], tmp_path / "x.txt", CurateConfig(), lambda line: None)
    empty = write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError):
        app.curate([str(empty)], tmp_path / "x.jsonl", CurateConfig(), lambda line: None)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        app.curate([str(source)], tmp_path / "file/x.jsonl", CurateConfig(), lambda line: None)
    with pytest.raises(ValueError, match="'english' is no ISO 639 code"):
        CurateConfig(languages=("english",))
    with pytest.raises(ValueError, match="lowest 5"):
        CurateConfig(perplexity={"model": "nano", "lowest": 5, "highest": 4})
