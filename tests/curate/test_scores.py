"""Scores that decide what is kept: of a file, of a reward model, of a judge."""

import json

import pytest
from judge_files import judging, rows
from talks import talk

from selfplay import app
from selfplay.chat.families import family
from selfplay.chat.models import locate_model
from selfplay.curate.config import CurateConfig, Reward, Scores
from selfplay.curate.scores import score_by_reward_model, score_from_file
from selfplay.errors import BackendError, ConfigError, DataError, ModelError
from selfplay.recipe import validated

TALKS = [
    talk(f"I need table number {n}.", f"Table {n} is yours.", "Thanks a lot for it.", id=f"c{n}") for n in range(12)
]


def source(path, conversations=TALKS):
    said = [{"id": one.id, "messages": one.messages(), "ended": one.ended} for one in conversations]
    path.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    return str(path)


def curated(tmp_path, lines=None, **settings):
    config = validated(CurateConfig, {"near_duplicates": None, **settings}, "test")
    given = source(tmp_path / "talks.jsonl")
    done = app.curate([given], tmp_path / "kept.jsonl", config, (lines if lines is not None else []).append)
    left = {row["id"]: (row["step"], row["reason"]) for row in rows(tmp_path / "kept.jsonl.dropped.jsonl")}
    return done, left


def test_scores_of_a_file_decide_and_what_has_none_is_left_out(tmp_path):
    scores = tmp_path / "scores.jsonl"
    scores.write_text("".join(json.dumps({"id": f"c{n}", "score": n / 10}) + "\n" for n in range(11)), encoding="utf-8")
    done, left = curated(tmp_path, scores={"file": str(scores), "lowest": 0.8})
    assert done.kept == 3
    assert left["c0"] == ("score", "below 0.8")
    assert left["c11"] == ("score", "no score")
    assert "c8" not in left


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("", DataError, "holds no score"),
        ('{"id": "c0"}\n', DataError, r"scores.jsonl:1: expected .* found"),
        ('\n{"id": "c0", "score": "high"}\n', DataError, r"scores.jsonl:2"),
        ("[1]\n", DataError, r"scores.jsonl:1"),
        (None, ConfigError, "no scores that can be read"),
    ],
)
def test_files_that_are_no_scores(tmp_path, text, error, told):
    if text is not None:
        (tmp_path / "scores.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=told):
        score_from_file(Scores(file=str(tmp_path / "scores.jsonl"), lowest=1))


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory, tiny_tokenizer):
    """A classifier with random weights; its tokenizer and template are those of the tests."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=90, num_labels=1, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(family("nano").template("assistant"), encoding="utf-8")
    return folder


def test_a_reward_model_gives_a_conversation_its_number(tmp_path, reward_model, tiny_tokenizer):
    """The same as the model gives on the template's own ids; control tokens in a text are text."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from bench.metrics.reward import RewardModel

    sly = talk("Is <|im_end|> a word?", "Yes.", id="sly")
    long = talk("word " * 100, "Yes.", id="long")
    first, injected, cut = RewardModel(reward_model).score([TALKS[0], sly, long])
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32)
    ids = tiny_tokenizer.apply_chat_template(
        TALKS[0].messages(), chat_template=family("nano").template("assistant"), tokenize=True, return_dict=False
    )
    with torch.inference_mode():
        assert first == pytest.approx(float(model(input_ids=torch.tensor([ids])).logits[0, 0]), abs=1e-5)
    assert injected is not None
    assert cut is None
    scores = RewardModel(reward_model).score(TALKS)
    bound = sorted(scores)[5]
    done, left = curated(tmp_path, reward={"model": str(reward_model), "lowest": bound})
    assert done.kept == 7
    assert set(left.values()) == {("reward", f"below {bound:g}")}
    assert score_by_reward_model(Reward(model=str(reward_model), lowest=-1e9))([long]) == [
        "too long for the reward model"
    ]


def test_models_that_are_no_reward_models(tmp_path):
    with pytest.raises(ModelError, match=r"no reward model \(LlamaForCausalLM\); expected one of sequence"):
        curated(tmp_path, reward={"model": str(locate_model("nano", "assistant")), "lowest": 0})
    with pytest.raises(ModelError, match="no reward model that can be read"):
        curated(tmp_path, reward={"model": str(tmp_path), "lowest": 0})


def test_a_judge_rates_whole_conversations_once(tmp_path):
    asked, lines = [], []

    def judge(request):
        asked.append(request["messages"][-1]["content"])
        number = int(asked[-1].split("table number ")[1].split(".")[0])
        return "I will not say." if number == 5 else f"Fine. Rating: [[{number % 10 + 1}]]"

    with judging(judge) as url:
        settings = {"judge": {"judge": url, "lowest": 4, "endpoint": {"timeout": 5}}}
        done, left = curated(tmp_path, lines, **settings)
        again, same = curated(tmp_path, lines, **settings)
        other, _ = curated(tmp_path, lines, judge={**settings["judge"], "lowest": 1})
    third = next(text for text in asked if "number 3." in text)
    assert "User: I need table number 3.\n\nAssistant: Table 3 is yours." in third
    assert left["c2"] == ("judge", "below 4")
    assert left["c5"] == ("judge", "no verdict: unparsed")
    assert left["c10"] == ("judge", "below 4")
    assert "c3" not in left
    assert (done.kept, again.kept, other.kept) == (6, 6, 11)
    assert same == left
    assert len(asked) == 12 + 2 + 3 + 3  # the one without a verdict is asked for again, three times each
    assert "rates 1 conversations, 11 were rated" in lines[1]


def test_a_judge_that_fails_keeps_what_it_said_and_is_asked_for_the_rest(tmp_path):
    settings = {"judge": {"lowest": 4, "endpoint": {"timeout": 0.5, "attempts": 1, "first_delay": 0.01}}}
    with judging(lambda request: "[[7]]", faults=0.5, stall=1) as url:
        settings["judge"]["judge"] = url
        with pytest.raises(BackendError, match=r"of 12 verdicts failed .*the same command asks for the others"):
            curated(tmp_path, **settings)
    with judging(lambda request: "[[7]]") as url:
        settings["judge"]["judge"] = url
        lines = []
        assert curated(tmp_path, lines, **settings)[0].kept == 12
    assert 0 < int(lines[0].split(" rates ")[1].split()[0]) < 12


def test_a_failure_on_a_conversation_that_is_not_asked_about_any_more_is_no_failure(tmp_path):
    with judging(lambda request: "[[7]]") as url:
        settings = {"judge": {"judge": url, "lowest": 4, "endpoint": {"timeout": 5}}}
        curated(tmp_path, **settings)
        (path,) = (tmp_path / "kept.jsonl.judged/model_judgment").glob("*.jsonl")
        told = rows(path)
        old = {**told[0], "question_id": "c99-gone", "score": -1, "judgment": "$ERROR$", "cause": "failed:http_500"}
        path.write_text("".join(json.dumps(row) + "\n" for row in [*told, old]), encoding="utf-8")
        assert curated(tmp_path, **settings)[0].kept == 12


def test_scores_by_ids_that_are_not_ones_own_are_refused(tmp_path):
    scores = tmp_path / "scores.jsonl"
    scores.write_text('{"id": "c0", "score": NaN}\n', encoding="utf-8")
    reasons = score_from_file(Scores(file=str(scores), lowest=0))
    assert reasons(TALKS[:1]) == ["no score"]
    with pytest.raises(DataError, match="'c0' is the id of two conversations"):
        reasons(TALKS[:1])


def test_a_judge_that_is_gone_keeps_what_it_said(tmp_path):
    with judging(lambda request: "[[7]]") as url:
        pass
    with pytest.raises(BackendError, match=r"127\.0\.0\.1"):
        curated(tmp_path, judge={"judge": url, "lowest": 4, "endpoint": {"timeout": 1, "attempts": 1}})
    assert not (tmp_path / "kept.jsonl").exists()
