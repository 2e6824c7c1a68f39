import random

import numpy as np
import pytest

from selfplay.chat.conversation import conversation_from_pairs
from selfplay.data.cleaning.duplicates import (
    PERMUTATIONS,
    ExactDuplicates,
    NearDuplicates,
    bands_for,
    signatures,
    text_digest,
)

WORDS = [f"w{number}" for number in range(3000)]


def talk(*texts):
    roles = ("user", "assistant")
    return conversation_from_pairs("c", [(roles[n % 2], text) for n, text in enumerate(texts)])


def shingles(text):
    words = text.split()
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def similarity(one, other):
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def kept_exact(folder, texts, batch=7):
    search = ExactDuplicates(folder)
    for start in range(0, len(texts), batch):
        search.add(b"".join(text_digest(talk(text)) for text in texts[start : start + batch]))
    kept = np.ones(len(texts), bool)
    assert search.drop(kept) == len(texts) - kept.sum()
    return kept


def kept_near(folder, texts, threshold=0.8, batch=64):
    search = NearDuplicates(folder, threshold)
    for start in range(0, len(texts), batch):
        search.add(signatures(texts[start : start + batch]).tobytes())
    kept = np.ones(len(texts), bool)
    search.drop(kept)
    return kept


def test_the_first_of_equal_rows_stays(tmp_path):
    chance = random.Random(0)
    texts = [str(chance.randrange(300)) for _ in range(1000)]
    kept = kept_exact(tmp_path, texts)
    assert [text for text, stays in zip(texts, kept, strict=True) if stays] == list(dict.fromkeys(texts))


def test_equal_means_turn_by_turn():
    assert text_digest(talk("a b", "c")) != text_digest(talk("a", "b c"))
    assert text_digest(talk("a", "b")) == text_digest(talk("a", "b"))


def test_signatures_estimate_the_similarity_of_shingles():
    chance = random.Random(1)
    for share in (0.02, 0.1, 0.3):
        one = chance.choices(WORDS, k=300)
        other = [chance.choice(WORDS) if chance.random() < share else word for word in one]
        texts = [" ".join(one), " ".join(other)]
        estimate = float(np.mean(np.equal(*signatures(texts))))
        assert estimate == pytest.approx(similarity(*texts), abs=4 * 0.5 / PERMUTATIONS**0.5)


def test_signatures_do_not_depend_on_the_batch_or_the_case():
    texts = ["Hello there, my friend of old", "另一个对话在这里开始了", "", "!?"]
    run_all = signatures(texts)
    assert run_all.shape == (4, PERMUTATIONS)
    assert all(np.array_equal(run_all[number], signatures([text.upper()])[0]) for number, text in enumerate(texts))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_pairs_at_the_threshold_meet_in_a_band(threshold):
    bands, rows = bands_for(threshold)
    assert bands * rows <= PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** bands >= 0.97


def test_near_copies_go_and_others_stay(tmp_path):
    """Against the similarity of all pairs, computed outright."""
    chance = random.Random(2)
    texts: list[str] = []
    for _ in range(400):
        words = chance.choices(WORDS, k=120)
        if texts and chance.random() < 0.4:
            words = chance.choice(texts).split()
            for _ in range(chance.choice([0, 1, 1, 2, 20, 60])):
                words[chance.randrange(len(words))] = chance.choice(WORDS)
        texts.append(" ".join(words))
    kept = kept_near(tmp_path, texts, 0.8)
    for row, text in enumerate(texts):
        nearest = max((similarity(text, texts[e]) for e in range(row) if kept[e]), default=0.0)
        if nearest >= 0.9:
            assert not kept[row]
        if nearest <= 0.65:
            assert kept[row]
    assert 0 < (~kept).sum() < len(texts)


def test_a_row_stays_when_only_a_dropped_one_is_like_it(tmp_path):
    words = WORDS[:100]
    chain = [" ".join(words[at : at + 80]) for at in range(0, 18, 6)]
    assert similarity(chain[0], chain[1]) > 0.8 > similarity(chain[0], chain[2])
    assert kept_near(tmp_path, chain, 0.8).tolist() == [True, False, True]


def test_many_copies_of_one_row_leave_one(tmp_path):
    text = " ".join(WORDS[:50])
    assert kept_near(tmp_path, [f"{text} x{number}" for number in range(5000)], 0.8).sum() == 1


def test_signs_count(tmp_path):
    texts = ["1 + 1", "1 - 1", "😀😀", "🙂", "x = a + b; y = x * 2", "x = a - b; y = x / 2"]
    assert kept_near(tmp_path, texts).all()
