"""What an iteration is measured by: held-out people's assistants with the paired gain, users, judged answers."""

import json

import pytest
from held_runs import hold
from judge_files import CATEGORIES, data_folder, judging, write_lines

from selfplay.chat.models import locate_model
from selfplay.data.loading import is_held_out
from selfplay.errors import BackendError, DataError, SelfplayError
from selfplay.loop.config import BenchStage
from selfplay.loop.evaluate import HELD_OUT, EvalSpec, _people, evaluate
from selfplay.loop.metrics import CORPUS, NAMES, USERS

NANO = locate_model("nano", "assistant")
QUIET = {"human": ("sample",), "max_conversations": 10, "examples": 0}


def silent(line):
    """Says nothing."""


def measured(iteration, out, run=None, before=(), **settings):
    stage = BenchStage.model_validate({**QUIET, **settings})
    return evaluate(EvalSpec(iteration, NANO, run, None, before), stage, out, silent)


def answered(out):
    """The assistant's answers, there already: no engine starts."""
    said = [{"question_id": n, "choices": [{"index": 0, "turns": ["Yes.", "No."]}]} for n in range(1, 9)]
    write_lines(out / "judged/mt_bench/model_answer/iteration-1.jsonl", said)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The first assistant, measured."""
    out = tmp_path_factory.mktemp("first") / "bench"
    return out, measured(0, out)


def test_the_first_assistant_has_a_held_out_loss_and_nothing_to_gain_over(first):
    out, figures = first
    value, low, high = figures.pop("bits_per_byte")
    assert 0.2 < low < value < high < 3
    assert not figures
    scores = json.loads((out / HELD_OUT).read_text())
    assert len(scores["bits"]) == 10
    assert sum(scores["bits"]) / sum(scores["bytes"]) == pytest.approx(value, abs=1e-5)


def test_the_gain_is_paired_and_over_the_best_one_before(first, tmp_path):
    scores = json.loads((first[0] / HELD_OUT).read_text())
    worse, better, others = (tmp_path / f"{name}.json" for name in ("worse", "better", "others"))
    worse.write_text(json.dumps({**scores, "bits": [bits * 1.2 for bits in scores["bits"]]}))
    better.write_text(json.dumps({**scores, "bits": [bits * 0.9 for bits in scores["bits"]]}))
    others.write_text(json.dumps({"bits": [1.0], "bytes": [100]}))  # of other people: not comparable
    value = first[1].get("bits_per_byte", [sum(scores["bits"]) / sum(scores["bytes"])])[0]
    gained = measured(1, tmp_path / "a", before=(worse, others))["gain"]
    assert gained[0] == pytest.approx(0.2 * value, rel=1e-3)
    assert gained[1] > 0
    assert measured(1, tmp_path / "b", before=(worse, better))["gain"][0] == pytest.approx(-0.1 * value, rel=1e-3)
    assert "gain" not in measured(1, tmp_path / "c", before=(others, tmp_path / "nowhere.json"))


def test_a_run_is_beside_people_in_users_and_corpus(tmp_path, sample):
    texts = {f"c{n}": [turn.content for turn in one.turns] for n, one in enumerate(sample[:60])}
    hold(tmp_path / "run", texts)
    figures = measured(1, tmp_path / "bench", tmp_path / "run", max_conversations=100)
    people = figures.pop("people")
    assert set(figures) <= NAMES
    assert {figure.name for figure in (*USERS, *CORPUS)} <= set(figures)
    for name in ("rounds", "words_per_turn", "distinct_2", "mtld", "tokens_per_assistant_turn"):
        assert figures[name][1] <= figures[name][0] <= figures[name][2]
        assert people[name][0] == pytest.approx(figures[name][0], rel=0.35)  # half of the sample, beside all of it
    assert figures["repeated_dialogues"][0] == 0
    assert {path.name for path in (tmp_path / "bench").iterdir()} >= {
        "scorecard.md",
        "panel.png",
        "corpus.md",
        HELD_OUT,
    }


def test_people_are_a_sample_over_all_sets_and_nothing_that_is_learned_from(tmp_path, sample):
    """The same in every order and every iteration; of a set that is trained on only what its training holds out."""
    other = tmp_path / "other.jsonl"
    said = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}] for n in range(120)]
    rows = (json.dumps({"id": f"o{n}", "messages": messages}) + "\n" for n, messages in enumerate(said))
    other.write_text("".join(rows), encoding="utf-8")

    def drawn(*names, most=40, **learned):
        stage = BenchStage(human=names, max_conversations=most)
        return _people(EvalSpec(1, NANO, None, None, **learned), stage)

    both = drawn("sample", str(other))
    assert both == drawn(str(other), "sample")
    assert 10 < sum(one.id.startswith("o") for one in both) < 30
    assert drawn("sample") != sample[:40]
    learned = drawn("sample", most=400, learned_from=frozenset({"sample"}), held_out=0.3)
    assert 20 < len(learned) < 60
    assert all(is_held_out(one, 0.3) for one in learned)


def test_a_judge_that_fails_is_a_stage_that_failed_and_goes_on(tmp_path):
    data = data_folder(tmp_path / "data")
    answered(tmp_path / "bench")
    settings = {"data": str(data), "judge_endpoint": {"timeout": 0.5, "attempts": 1, "first_delay": 0.01}}
    with (
        judging(faults=0.6, stall=1) as url,
        pytest.raises(BackendError, match=r"of 16 judgments failed .*asks for them again"),
    ):
        measured(1, tmp_path / "bench", judge=url, settings=settings)
    with judging() as url:
        assert "mt-bench" in measured(1, tmp_path / "bench", judge=url, settings=settings)


def test_answers_are_judged_and_what_is_there_is_not_asked_for_again(tmp_path):
    data = data_folder(tmp_path / "data")
    answered(tmp_path / "bench")
    settings = {"data": str(data), "judge_endpoint.timeout": 5}
    with judging() as url:
        figures = measured(1, tmp_path / "bench", judge=url, settings=settings)
    assert 1 <= figures["mt-bench"][1] <= figures["mt-bench"][0] <= figures["mt-bench"][2] <= 10
    report = tmp_path / "bench/judged/mt_bench/report/scripted_single.md"
    assert all(category in report.read_text() for category in CATEGORIES)
    with pytest.raises(SelfplayError, match=r"127\.0\.0\.1"):  # the judge is gone, and was asked for its name
        measured(1, tmp_path / "bench", judge=url, settings={**settings, "judge_endpoint.attempts": 1})


def test_people_have_to_be_there(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"messages": []}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no conversation of people to measure by"):
        measured(0, tmp_path / "bench", human=(str(tmp_path / "empty.jsonl"),))
