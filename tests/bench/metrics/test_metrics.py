"""Each metric of simulated users against a case counted by hand, and against the library that computes the same."""

import math
import random

import numpy as np
import pytest
from lexicalrichness import LexicalRichness
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from bench.corpus.describe import Mean, share
from bench.intervals import between, subsampled
from bench.metrics.diversity import bleu_against_others, distinct, jaccard_diversity, mtld, mtld_of, self_bleu
from bench.metrics.habits import ENDED, HABITS, ROUNDS, counted, distance, rate, tokens_per_turn
from bench.metrics.intents import content_words, coverage, decomposition, having_intents
from bench.metrics.naturalness import _auc, balanced, ngrams, two_sample_auc
from bench.metrics.overlap import Overlap
from bench.metrics.termination import brier, calibration
from bench.words import Encoded, words
from selfplay.chat.conversation import Conversation, conversation_from_pairs

BY_NAME = {habit.name: habit for habit in (*HABITS, ROUNDS)}


def talk(*texts, id="x", **more):
    roles = ["user", "assistant"] * len(texts)
    return conversation_from_pairs(id, list(zip(roles, texts, strict=False)), **more)


@pytest.fixture(scope="module")
def random_texts():
    draws = random.Random(0)
    return [[draws.choice("abcdefghij") for _ in range(draws.randint(1, 14))] for _ in range(80)]


def test_words_are_lower_case_runs_and_single_chinese_characters():
    assert words("Don't stop-it, 3 times!") == ["don't", "stop-it", "3", "times"]
    assert words("我要一间Zimmer für zwei") == ["我", "要", "一", "间", "zimmer", "für", "zwei"]
    assert words("カフェ…") == ["カ", "フ", "ェ"]
    assert words("한국어 문장") == ["한국어", "문장"]
    assert words("हिन्दी में don’t") == ["हिन्दी", "में", "don't"]
    assert words("?!") == []


def test_grams_stay_inside_their_text():
    one, two, three = Encoded([["a", "b", "a", "b"], ["b"], ["a", "b", "c"]]).grams(3)
    assert [one.different, two.different, three.different] == [3, 3, 3]
    assert two.text.tolist() == [0, 0, 0, 2, 2]
    assert two.gram[0] == two.gram[2] == two.gram[3]
    assert three.text.tolist() == [0, 0, 2]


def test_grams_of_nothing():
    assert [grams.different for grams in Encoded([[], []]).grams(3)] == [0, 0, 0]


def test_distinct_is_different_over_all():
    one, two = Encoded([["a", "b", "a"], ["a", "c"]]).grams(2)
    assert distinct(one, np.arange(2)).value == 3 / 5
    assert distinct(two, np.arange(2)).value == 1.0


def test_distinct_counts_only_grams_of_the_texts_drawn(random_texts):
    grams = Encoded(random_texts).grams(2)[1]
    by_hand = {tuple(text[at : at + 2]) for text in random_texts for at in range(len(text) - 1)}
    total = sum(max(len(text) - 1, 0) for text in random_texts)
    estimate = distinct(grams, np.arange(len(random_texts)))
    assert estimate.value == len(by_hand) / total
    assert estimate.low < estimate.value < estimate.high


def test_first_turns_by_jaccard():
    # {a b} ∩ {b c} = 1 of 3, {a b} ∩ {d} = 0, {b c} ∩ {d} = 0
    assert jaccard_diversity([["a", "b", "a"], ["b", "c"], ["d"]]).value == pytest.approx(1 - (1 / 3) / 3)
    assert jaccard_diversity([["a"], ["a"]]).value == pytest.approx(0.0)
    assert jaccard_diversity([[], ["a"]]).value == 1.0
    with pytest.raises(ValueError, match="pairs need two"):
        jaccard_diversity([["a"]])


def test_mtld_counts_factors_both_ways():
    # forwards: a b a is 2/3 ≤ .72, one factor; then c d is 1, no part. Backwards: d c a b a ends at 4/5: (1-.8)/.28.
    assert mtld_of(["a", "b", "a", "c", "d"]) == pytest.approx((5 / 1 + 5 / (0.2 / 0.28)) / 2)
    assert mtld_of(["a", "b", "c"]) == 3
    pooled = mtld([["a", "b", "a"], ["c", "d"]])
    assert pooled.value == pytest.approx((5 / 1 + 5 / 1) / 2)


@pytest.mark.parametrize("length", [1, 7, 50, 400])
def test_mtld_is_what_lexicalrichness_computes(length):
    draws = random.Random(length)
    text = [str(draws.randrange(60)) for _ in range(length)]
    assert mtld_of(text) == pytest.approx(LexicalRichness(text, preprocessor=None, tokenizer=None).mtld())


@pytest.mark.filterwarnings("ignore:.*hypothesis contains 0 counts.*")
def test_self_bleu_is_what_nltk_computes(random_texts):
    texts = [*random_texts, ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], ["z"]]
    smooth = SmoothingFunction().method1
    theirs = [
        sentence_bleu(texts[:row] + texts[row + 1 :], text, smoothing_function=smooth) for row, text in enumerate(texts)
    ]
    np.testing.assert_allclose(bleu_against_others(texts), theirs, atol=1e-12)
    assert self_bleu(texts, np.arange(len(texts))).value == pytest.approx(np.mean(theirs))


def test_self_bleu_of_repeats_is_one_and_of_strangers_nothing():
    assert self_bleu([["a", "b", "c", "d"]] * 3, np.zeros(3, int)).value == pytest.approx(1.0)
    assert self_bleu([["a", "b"], ["c", "d"]], np.arange(2)).value == 0.0
    assert bleu_against_others([[], ["a"]]).tolist() == [0.0, 0.0]


def test_subsamples_hold_the_value_and_nothing_is_refused():
    whole = subsampled(30, lambda rows: len(rows) / 30)
    assert whole.value == 1.0
    with pytest.raises(ValueError, match="nothing"):
        subsampled(0, lambda rows: 0.0)
    with pytest.raises(ValueError, match="compare"):
        between(0, 3, lambda a, b: 0.0)


def test_intents_are_compared_without_stop_words():
    meta = {"intent": "a cheap Italian restaurant in the north"}
    conversation = talk("I want an Italian restaurant", "which?", "cheap, and the north", "ok", meta=meta)
    # intent {cheap italian restaurant north}; turns {want italian restaurant}: 2 of 5; {cheap north}: 2 of 4
    assert decomposition([conversation]).value == pytest.approx((2 / 5 + 2 / 4) / 2)
    assert coverage([conversation]).value == 1.0
    assert content_words("I'd rather don't, the taxi") == {"taxi"}
    assert coverage([conversation, talk("hello", "hi", meta=meta)]).value == 0.5
    assert having_intents([talk("a", "b"), talk("a", "b", meta={"intent": "the of"}), conversation]) == [conversation]


def test_calibration_and_brier_by_hand():
    # decisions (p, ended): (.9, yes) (.1, no) | (.3, no) (.3, yes): bins .9: .1, .1: .1, .3: |.6 - 1|
    probabilities = [[0.1, 0.9], [0.3, 0.3]]
    assert calibration(probabilities).value == pytest.approx((0.1 + 0.1 + 0.4) / 4)
    assert brier(probabilities).value == pytest.approx((0.01 + 0.01 + 0.09 + 0.49) / 4)
    assert calibration([[0.0, 1.0]]).value == 0.0


@pytest.mark.parametrize(
    ("habit", "expected"),
    [
        ("words_per_turn", (2 + 5 + 2 + 6) / 4),
        ("questions", 1 / 4),
        ("greetings_thanks", 2 / 4),
        ("typos", 1 / 10),
        ("small_first_letter", 2 / 4),
        ("repeated_turns", 1 / 4),
        ("role_drift", 1 / 4),
        ("rounds", 3),
    ],
)
def test_habits_by_hand(habit, expected):
    conversation = talk(
        "Hello there",
        "Hi!",
        "is the recieved Acme table?",
        "It is.",
        "hello  there",
        "Yes?",
        "How can I help you today",
    )
    assert rate(counted(BY_NAME[habit], [conversation])).value == pytest.approx(expected)


def test_a_user_who_says_the_answer_back_drifts():
    conversation = talk("a table", "I found one for you", "I found one  for YOU", "ok")
    assert rate(counted(BY_NAME["role_drift"], [conversation])).value == 0.5


def test_tokens_are_counted_by_the_given_tokenizer():
    assert rate(counted(tokens_per_turn(len), [talk("abc", "x", "a", "x")])).value == 2.0


def test_rounds_are_of_whole_conversations():
    cut = talk("a", "b", complete=False)
    simulated = Conversation("s", talk("a", "b", "c", "d").turns, False, "max_rounds")
    assert counted(ROUNDS, [cut]).conversations == 0
    assert rate(counted(ROUNDS, [cut, simulated])).value == 2
    assert rate(counted(ENDED, [cut, simulated])).value == 0
    assert rate(counted(ENDED, [simulated, Conversation("e", simulated.turns, True, "user_ended")])).value == 0.5


def test_distance_of_sizes_is_wasserstein_and_of_shares_the_difference():
    from scipy.stats import wasserstein_distance

    draws = random.Random(1)
    sides = [
        [talk(*(" ".join("w" * draws.randint(1, top)) for _ in range(6)), id=f"{top}{n}") for n in range(40)]
        for top in (9, 14)
    ]
    lengths = [[len(text.split()) for c in side for text in c.of("user")] for side in sides]
    people, simulated = (counted(BY_NAME["words_per_turn"], side) for side in sides)
    assert distance(people, simulated).value == pytest.approx(wasserstein_distance(*lengths))
    asked, not_asked = (counted(BY_NAME["questions"], [talk(text, "b")]) for text in ("a?", "a"))
    assert distance(asked, not_asked).value == 1.0


def test_the_auc_is_what_scikit_learn_computes():
    from sklearn.metrics import roc_auc_score

    draws = np.random.default_rng(0)
    people, simulated = ([talk(f"{name} {n}", "ok", id=f"{name}{n}") for n in range(90)] for name in "ab")
    sides = balanced(people, simulated, 0, 1000)
    scores = np.round(draws.normal(size=len(sides.texts)) + sides.labels, 1)
    assert _auc([(sides, scores)]).value == pytest.approx(roc_auc_score(sides.labels, scores))


def test_the_auc_is_the_mean_over_drawings_of_turns():
    people, simulated = ([talk(*"abcd", id=f"{name}{n}") for n in range(20)] for name in "ps")
    drawings = [balanced(people, simulated, seed, 30) for seed in (0, 1)]
    told, not_told = drawings[0].labels.astype(float), np.zeros(60)
    both = _auc([(drawings[0], told), (drawings[1], not_told)])
    assert both.value == pytest.approx((1.0 + 0.5) / 2)
    assert both.n == len({*drawings[0].groups, *drawings[1].groups}) <= 40


def test_the_classifier_reads_chinese_by_character():
    found = ngrams(["我要房间", "我要火车"] * 8, np.array([0, 1] * 8), ["一个房间", "一个火车"])
    assert found[0] < 0.5 < found[1]


def test_too_few_conversations_are_no_test():
    few = [talk("a", "b", id=str(n)) for n in range(9)]
    with pytest.raises(ValueError, match="9 conversations of people have user turns; the test needs 10"):
        two_sample_auc(few, few)


def test_the_classifier_is_not_misled_by_folds_of_few_equal_conversations():
    """Folds of unequal parts make pooled scores run against the labels, and equals look better than equal."""
    draws = random.Random(0)
    found = []
    for _ in range(12):
        people, simulated = (
            [talk(*(" ".join(draws.choices("abcdefgh", k=5)) for _ in range(8)), id=f"{side}{n}") for n in range(12)]
            for side in "ps"
        )
        found.append(two_sample_auc(people, simulated).value)
    assert 0.44 < np.mean(found) < 0.56


def test_distances_of_equals_reach_down_to_nothing():
    draws = random.Random(2)
    people, simulated = (
        counted(
            BY_NAME["words_per_turn"],
            [talk(*(" ".join("w" * draws.randint(1, 9)) for _ in range(6))) for _ in range(60)],
        )
        for _ in range(2)
    )
    estimate = distance(people, simulated)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.low < 0.3


def test_questions_are_found_by_long_ngrams():
    question = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences"
    overlap = Overlap([question, "Write a poem about the sea and nothing else", "Why?"])
    assert overlap.too_short == 1
    assert overlap.holds(words(f"please: {question.lower()} and go on"))
    assert not overlap.holds(words("Compose an engaging travel blog post about a recent trip"))
    assert overlap.holds(words("now write a poem about the sea and nothing else"))
    assert not overlap.holds([])


def test_sums_of_squares_give_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    mean = Mean()
    for value in values:
        mean.add(float(value))
    estimate = mean.estimate()
    error = 1.959964 * values.std(ddof=1) / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.value == pytest.approx(error, rel=1e-6)
    assert Mean().estimate() is None


def test_a_share_of_none_still_has_an_upper_end():
    estimate = share(0, 100)
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert 0.03 < estimate.high < 0.04
    assert share(0, 0).n == 0
