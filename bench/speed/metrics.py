"""Metrics of simulated users on 100,000 turns, each beside the library function that computes the same; and corpora.

    python -m bench.speed.metrics                       # the table of metrics; about six minutes on 2 cores
    python -m bench.speed.metrics corpus 1000000        # seconds and memory of corpus statistics; about 15 minutes

Turns are user turns of SGD ($SELFPLAY_DATA), taken over again with other numbers in them where there are not enough.
Ours and the library's run on the same turns in one process, one after the other. What is quadratic in a library is
given as many turns as it does in about half a minute: the ratio is at that size, the seconds on all turns are ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from selfplay.chat.conversation import Conversation, Turn

if TYPE_CHECKING:
    from bench.metrics.naturalness import Sides

TURNS = 100_000
BLEU_TURNS = 1000
RESAMPLES, SOME = 1000, 20
A_TALK = 8


class Line(NamedTuple):
    """One metric: ours on all turns in seconds, then ours and the library's at `size` turns."""

    metric: str
    seconds: float
    library: str
    size: int
    ours: float
    theirs: float


def turns_of_people(count: int) -> list[str]:
    """User turns of SGD's training set; a number is put behind those that come round again."""
    from selfplay.data.loading import load

    texts = [text for c in load(["sgd_train"]).conversations for text in c.of("user")]
    rounds = itertools.count()
    more: Iterator[str] = (f"{text} {n}" for n in rounds for text in texts) if len(texts) < count else iter(())
    return list(itertools.islice(itertools.chain(texts, more), count))


def talks(texts: list[str]) -> list[Conversation]:
    """Conversations of eight user turns each."""
    answered = [(Turn("user", text), Turn("assistant", "ok")) for text in texts]
    starts = range(0, len(texts), A_TALK)
    return [Conversation(str(at), tuple(itertools.chain(*answered[at : at + A_TALK]))) for at in starts]


def timed(work: Callable[[], Any]) -> float:
    """Seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def mtld_line(texts: list[str]) -> Line:
    """MTLD of conversations; lexicalrichness one text at a time."""
    from lexicalrichness import LexicalRichness

    from bench.metrics.diversity import mtld, mtld_of
    from bench.words import words

    split = [words(" ".join(c.of("user"))) for c in talks(texts)]
    some = split[:2000]
    ours = timed(lambda: [mtld_of(text) for text in some])
    theirs = timed(lambda: [LexicalRichness(text, preprocessor=None, tokenizer=None).mtld() for text in some])
    return Line("MTLD", timed(lambda: mtld(split)), "lexicalrichness", len(some) * A_TALK, ours, theirs)


def self_bleu_lines(texts: list[str]) -> Iterator[Line]:
    """Self-BLEU of turns; nltk and sacrebleu with all other turns as references."""
    from bench.metrics.diversity import bleu_against_others, self_bleu
    from bench.words import words

    split = [words(text) for text in texts]
    whole = timed(lambda: self_bleu(split, np.arange(len(split)) // A_TALK))
    some = split[:BLEU_TURNS]
    ours = timed(lambda: bleu_against_others(some))
    for library, theirs in (("nltk", nltk_bleu), ("sacrebleu", sacre_bleu)):
        yield Line("self-BLEU", whole, library, BLEU_TURNS, ours, timed(partial(theirs, some)))


def nltk_bleu(texts: list[list[str]]) -> None:
    """Each text against the others."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, text in enumerate(texts):
            sentence_bleu(texts[:row] + texts[row + 1 :], text, smoothing_function=smooth)


def sacre_bleu(texts: list[list[str]]) -> None:
    """Each text against the others."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True, tokenize="none")
    joined = [" ".join(text) for text in texts]
    for row, text in enumerate(joined):
        bleu.sentence_score(text, joined[:row] + joined[row + 1 :])


def jaccard_line(texts: list[str]) -> Line:
    """Pairwise Jaccard of 2,000 first turns; nltk's jaccard_distance pair by pair."""
    from nltk.metrics import jaccard_distance

    from bench.metrics.diversity import jaccard_diversity, jaccard_matrix
    from bench.words import words

    split = [words(text) for text in texts[:2000]]
    sets = [set(text) for text in split]
    theirs = timed(lambda: [jaccard_distance(a, b) for a, b in itertools.combinations(sets, 2)])
    return Line("first-turn diversity", timed(lambda: jaccard_diversity(split)), "nltk", 2000,
                timed(lambda: jaccard_matrix(split)), theirs)  # fmt: skip


def distinct_line(texts: list[str]) -> Line:
    """Distinct-1 to 3 with intervals; nltk's ngrams in a set, without any."""
    from nltk.util import ngrams

    from bench.metrics.diversity import distinct
    from bench.words import Encoded, words

    split = [words(text) for text in texts]

    def theirs() -> None:
        for order in (1, 2, 3):
            grams = [gram for text in split for gram in ngrams(text, order)]
            len(set(grams)) / len(grams)

    def value() -> None:
        for grams in Encoded(split).grams(3):
            grams.different / max(len(grams.gram), 1)

    whole = timed(lambda: [distinct(grams, np.arange(len(split)) // A_TALK) for grams in Encoded(split).grams(3)])
    return Line("distinct-1, -2, -3", whole, "nltk", len(split), timed(value), timed(theirs))


def classifier_line(texts: list[str]) -> Line:
    """The two-sample test on two halves, with its interval; scikit-learn's cross_val_predict without one."""
    from bench.metrics.naturalness import TURNS as MOST
    from bench.metrics.naturalness import balanced, two_sample_auc

    side = talks(texts)
    people, simulated = side[::2], side[1::2]
    sides = balanced(people, simulated, 0, MOST)
    theirs = partial(cross_validated, sides)
    whole = timed(lambda: two_sample_auc(people, simulated))
    ours = timed(lambda: two_sample_auc(people, simulated, repeats=1))
    name, rival = "naturalness, 3 drawings, 1,000 resamples", "scikit-learn, one drawing, no interval"
    return Line(name, whole, rival, len(sides.texts), ours, timed(theirs))


def cross_validated(sides: Sides) -> float:
    """The same classifier in scikit-learn's own cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    from bench.metrics.naturalness import PATTERN

    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, lowercase=False, token_pattern=PATTERN)
    model = make_pipeline(terms, LogisticRegression(max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    texts, method = np.array(sides.texts), "predict_proba"
    found = cross_val_predict(model, texts, sides.labels, groups=sides.groups, cv=folds, method=method)
    return float(roc_auc_score(sides.labels, found[:, 1]))


def habit_lines(texts: list[str]) -> Iterator[Line]:
    """Rates and distance with intervals; scipy's distance as often as ours resamples (of which 20 are run)."""
    from scipy.stats import wasserstein_distance

    from bench.metrics.habits import HABITS, counted, distance, rate

    side = talks(texts)
    for habit in HABITS:
        began = time.perf_counter()
        people, simulated = counted(habit, side[::2]), counted(habit, side[1::2])
        rate(people), rate(simulated)
        ours = timed(lambda a=people, b=simulated: distance(a, b))  # type: ignore[misc]
        whole = time.perf_counter() - began
        once = partial(wasserstein_distance, people.value, simulated.value)
        theirs = timed(lambda run=once: [run() for _ in range(SOME)]) * RESAMPLES / SOME  # type: ignore[misc]
        yield Line(f"{habit.name}, rates and distance", whole, "scipy, distance", len(texts), ours, theirs)


def intent_line(texts: list[str]) -> Line:
    """Overlap with the intent and coverage; no library has them."""
    from bench.metrics.intents import coverage, decomposition

    side = [replace(talk, meta={"intent": " ".join(talk.of("user"))[:80]}) for talk in talks(texts)]
    seconds = timed(lambda: (decomposition(side), coverage(side)))
    return Line("intent overlap and coverage", seconds, "none", len(texts), seconds, float("nan"))


def metrics_table(turns: int) -> None:
    """Measure and print all metrics."""
    texts = turns_of_people(turns)
    random.Random(0).shuffle(texts)
    lines = [
        mtld_line(texts),
        *self_bleu_lines(texts),
        jaccard_line(texts),
        distinct_line(texts),
        classifier_line(texts),
        *habit_lines(texts),
        intent_line(texts),
    ]
    print(f"{turns:,} user turns; ours ÷ library below 1: ours is quicker\n")
    print("| metric | s, all turns | library | turns | ours, s | library, s | ours ÷ library |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for line in lines:
        size = f"{line.library} | {line.size:,}"
        figures = f"{line.ours:.3f} | {line.theirs:.3f} | {line.ours / line.theirs:.4f}"
        print(f"| {line.metric} | {line.seconds:.2f} | {size} | {figures} |")
    print(f"| all of them | {sum({line.metric: line.seconds for line in lines}.values()):.1f} | | | | | |")


def corpus_table(sizes: list[int]) -> None:
    """Corpus statistics of growing corpora: each in a process of its own, for its memory."""
    print("| dialogues | seconds | dialogues/s | peak MiB |\n| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / f"{size}.jsonl"
            write_corpus(path, size)
            command = [sys.executable, "-m", "bench.speed.metrics", "describe", str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            assert told["dialogues"] == size, told
            print(
                f"| {size:,} | {told['seconds']:.0f} | {size / told['seconds']:,.0f} | {told['mib']:.0f} |", flush=True
            )
            path.unlink()


def write_corpus(path: Path, size: int) -> None:
    """Dialogues of hh-rlhf's helpful sets as rows of messages, numbered so that no two are the same."""
    from selfplay.data.loading import load

    found = load(["hh_rlhf_helpful_base", "hh_rlhf_helpful_rejection_sampled"]).conversations
    with path.open("w", encoding="utf-8") as file:
        for number, conversation in zip(range(size), itertools.cycle(found), strict=False):
            messages = conversation.messages()
            messages[0] = {**messages[0], "content": f"{messages[0]['content']} ({number})"}
            file.write(json.dumps({"id": str(number), "messages": messages}) + "\n")


def describe(path: str) -> None:
    """Describe one corpus, with the progress bar, and print its seconds and the peak of memory."""
    from selfplay.app import describe_corpora
    from selfplay.console.bench import corpus_progress

    began = time.perf_counter()
    with corpus_progress() as progress:
        ((found,), _) = describe_corpora({"corpus": path}, on_progress=progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"dialogues": found.dialogues, "seconds": time.perf_counter() - began, "mib": peak}))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("metrics", "corpus", "describe"), default="metrics")
    parser.add_argument("values", nargs="*", help="dialogues (corpus)")
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    if chosen.what == "metrics":
        metrics_table(chosen.turns)
    elif chosen.what == "corpus":
        corpus_table([int(value) for value in chosen.values] or [10_000, 100_000])
    else:
        describe(chosen.values[0])


if __name__ == "__main__":
    main()
