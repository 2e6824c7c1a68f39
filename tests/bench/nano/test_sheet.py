"""Metrics against cases counted by hand."""

import numpy as np
import pytest
import torch

from bench.intervals import bootstrap, ratio
from bench.metrics.likelihood import Scorer, probabilities
from bench.metrics.naturalness import two_sample_auc
from bench.metrics.termination import f1, goodbye_rule, sampled_ends, score_ends
from bench.nano.likeness import describe
from bench.nano.report import _script
from selfplay.chat.conversation import conversation_from_pairs
from selfplay.chat.models import locate_model
from selfplay.seeds import derive_seed
from selfplay.serve.config import Sampling


def talk(*texts, id="x", complete=True):
    roles = ["user", "assistant"] * len(texts)
    return conversation_from_pairs(id, list(zip(roles, texts, strict=False)), complete=complete)


def test_an_interval_holds_the_value_and_narrows_with_data():
    few, many = (bootstrap(n, lambda rows, n=n: float((rows < n / 2).mean())) for n in (20, 2000))
    assert few.value == many.value == 0.5
    assert few.low < 0.5 < few.high
    assert many.high - many.low < few.high - few.low
    with pytest.raises(ValueError, match="no conversations"):
        bootstrap(0, lambda rows: 0.0)


def test_a_ratio_weighs_conversations_by_size():
    assert ratio(np.array([10.0, 1.0]), np.array([10.0, 10.0])).value == 0.55


def test_end_decisions_are_counted_against_where_people_stopped():
    conversations = [talk("a", "b", "c", "d"), talk("a", "b"), talk("a", "b", "c", "d")]
    score = score_ends(conversations, [[False, True], [False], [True, True]])
    assert score.precision.value == pytest.approx(2 / 3)
    assert score.recall.value == pytest.approx(2 / 3)
    assert score.f1.value == pytest.approx(2 / 3)
    assert f1((0, 0, 0)) == 0.0


def test_the_goodbye_rule_hears_either_side():
    conversation = talk("a table", "booked", "thanks", "Have a great day!", "oh, and a cab. That's all.", "done")
    assert goodbye_rule(conversation) == [False, True, True]


def test_decisions_are_drawn_with_their_probability_and_always_the_same():
    conversations = [talk("a", "b", id=f"c{n}") for n in range(500)]
    drawn = sampled_ends(conversations, [[0.3]] * 500)
    assert drawn == sampled_ends(conversations, [[0.3]] * 500)
    assert 0.22 < np.mean(drawn) < 0.38
    assert sampled_ends(conversations[:1], [[0.0]]) == [[False]]


def test_end_probabilities_follow_temperature_and_nucleus(renderers):
    renderer = renderers["user"]
    probs = torch.full((1, 600), 1e-9)
    probs[0, [renderer.end_of_conversation_id, 300, 301]] = torch.tensor([0.2, 0.5, 0.3])
    logs = torch.log(probs)

    def p_end(**sampling):
        return probabilities(logs, renderer.end_of_conversation_id, Sampling(**sampling))[0]

    assert p_end() == pytest.approx(0.2, abs=1e-4)
    assert p_end(top_p=0.79) == 0.0
    assert p_end(top_p=0.9) == pytest.approx(0.2, abs=1e-4)
    assert p_end(temperature=0.5) == pytest.approx(0.04 / 0.38, abs=1e-4)


def test_bits_per_byte_is_of_turns_and_bytes_of_the_role(renderers):
    scorer = Scorer(locate_model("nano", "simulator"))
    conversation = talk("a room in Rome", "for which night?", "né", "ok")
    score = scorer.score([conversation], "user", [Sampling()])
    assert score.bytes == [len("a room in Romené".encode())]
    assert len(score.ends[0][0]) == 2
    cut = scorer.score([talk("a room in Rome", "for which night?", "né", "ok", complete=False)], "user", [Sampling()])
    assert score.bits == pytest.approx(cut.bits)  # the end has no bytes
    assert len(cut.ends[0][0]) == 1


def test_a_likeness_row_counts_rounds_openings_and_repeats():
    row = describe([talk("Hi", "b", "hi", "d", "x"), talk("hi", "b")], equal_n=2)
    assert row.rounds.value == 1.5
    assert row.distinct_openings.value == 0.5
    assert row.repeats.value == 0.25
    assert row.words.value == 1.0


def test_the_classifier_cannot_tell_equals_apart_but_tells_others():
    words = ["room", "table", "train", "taxi", "song", "bank", "rain", "movie"]

    def side(name, extra=""):
        draws = [[words[derive_seed(name, n, k) % 8] for k in range(6)] for n in range(150)]
        return [
            talk(f"{extra}{' '.join(d[:3])}", "ok", " ".join(d[3:]), "ok", id=f"{name}{n}") for n, d in enumerate(draws)
        ]

    same = two_sample_auc(side("a"), side("b"))
    assert same.low < 0.5 < same.high
    assert two_sample_auc(side("a"), side("b", extra="please ")).value > 0.7


def test_cut_conversations_are_not_scored_for_their_ending():
    with pytest.raises(AssertionError, match="show no ending"):
        score_ends([talk("a", "b", complete=False)], [[True]])


def test_a_conversation_on_paper_cannot_close_its_own_fence():
    script = _script(talk("look:\n```python\nx\n```", "`````"))
    fence = script.splitlines()[-1]
    assert fence == "``````"
    assert script.startswith(f"{fence}text\n")
