"""The scorecard of simulated users: every metric for every row (simulators, prompted models, people), with intervals.

What cannot be computed (no people to compare with, a package that is not installed, too few conversations, a language a
metric does not know) is left out with its reason; the other metrics still run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.intervals import Measurement, ratio
from bench.metrics.diversity import distinct, jaccard_diversity, mtld, self_bleu
from bench.metrics.embeddings import Embedder, drawn, topic_diversity
from bench.metrics.habits import ENDED, HABITS, ROUNDS, Counted, Habit, counted, distance, rate, tokens_per_turn
from bench.metrics.intents import coverage, decomposition, having_intents
from bench.metrics.likelihood import RoleScore
from bench.metrics.naturalness import detector_auc, encoder, two_sample_auc
from bench.metrics.termination import brier, calibration, f1_gain, goodbye_rule, sampled_ends, score_ends
from bench.words import Encoded, Ints, words
from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.language import language_of
from selfplay.errors import SelfplayError

PEOPLE, GOODBYE_RULE = "people", "goodbye rule"
FIRST_TURNS = 2000
"""First turns compared pair by pair, as in UserLM; a sample where there are more."""
EQUAL_WORDS = 200_000
"""Most words of users that distinct-n and self-BLEU look at; all rows are given equally many."""
FEWEST_WORDS = 1000
"""A row with fewer is left out of both rather than cutting all others down to it."""
ENCODER_TURNS = 2000
_TOLD_FROM = 50

Decisions = dict[int, Sequence[bool]]
"""End decisions by the number of their conversation."""


@dataclass(slots=True)
class Scorecard:
    """Estimates by row and metric, and why others are missing."""

    title: str
    rows: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    """metric → row → reason."""
    notes: list[str] = field(default_factory=list)
    """What the figures stand on: sizes, tokenizers, samples."""

    @property
    def subject(self) -> str:
        """The row the scorecard is about: the first that is no reference."""
        return next((row for row in self.rows if row not in (PEOPLE, GOODBYE_RULE)), PEOPLE)

    def put(self, row: str, metric: str, compute: Callable[[], Measurement]) -> None:
        """Compute one figure; where it has a reason not to be there, keep the reason."""
        try:
            self.rows.setdefault(row, {})[metric] = compute()
        except (ValueError, RuntimeError, SelfplayError) as error:  # RuntimeError: of torch, as out of memory
            self.leave_out(row, metric, str(error))

    def leave_out(self, row: str, metric: str, reason: str) -> None:
        """Say why a figure is missing."""
        self.rows.setdefault(row, {})
        self.left_out.setdefault(metric, {})[row] = reason


@dataclass(frozen=True, slots=True)
class Tools:
    """What metrics of texts need beside the texts."""

    count_tokens: Callable[[str], int]
    tokenizer: str
    embedder: Embedder | None = None
    no_embedder: str = ""
    """Why there is none though one was asked for."""
    encoder: Path | None = None
    detector: str | None = None
    seed: int = 0


def score_likelihoods(card: Scorecard, scores: dict[str, RoleScore], suffix: str = "") -> None:
    """Bits per byte and perplexity of all rows, over the conversations that fit every row's context."""
    import numpy as np

    common = np.all([score.whole for score in scores.values()], axis=0)
    for row, score in scores.items():
        if score.cut:
            card.notes.append(
                f"{score.cut:,} conversations are longer than the context of {row}; no row is scored on them"
            )
        bits, size, tokens = (np.array(v, dtype=float)[common] for v in (score.bits, score.bytes, score.tokens))
        card.put(row, f"bits_per_byte{suffix}", partial(ratio, bits, size))
        card.put(row, f"perplexity{suffix}", lambda b=bits, t=tokens: _to_power(ratio(b, t)))  # type: ignore[misc]


def score_termination(
    card: Scorecard, row: str, people: Sequence[Conversation], ends: Sequence[Sequence[float]] | None
) -> Decisions:
    """The end decision against where people stopped: of p(end) by conversation, or (None) of the goodbye-word rule.

    Only whole conversations within the context count; a set without any gets no figures.

    Returns:
        The decisions by the number of their conversation.
    """
    numbers = [
        number
        for number, conversation in enumerate(people)
        if conversation.has_end_target and (ends is None or len(ends[number]) == conversation.rounds)
    ]
    names = ("end_precision", "end_recall", "end_f1", *(("end_calibration_error", "end_brier") if ends else ()))
    if not numbers:
        for name in names:
            card.leave_out(row, name, "no conversation shows where its user stopped (cut at their source)")
        return {}
    whole = [people[number] for number in numbers]
    if ends is None:
        decisions = [goodbye_rule(conversation) for conversation in whole]
    else:
        probabilities = [ends[number] for number in numbers]
        decisions = sampled_ends(whole, probabilities)
        card.put(row, "end_calibration_error", lambda: calibration(probabilities))
        card.put(row, "end_brier", lambda: brier(probabilities))
    score = score_ends(whole, decisions)
    card.rows.setdefault(row, {}).update(end_precision=score.precision, end_recall=score.recall, end_f1=score.f1)
    return dict(zip(numbers, decisions, strict=True))


def score_behind(
    card: Scorecard, people: Sequence[Conversation], scores: dict[str, RoleScore], decisions: dict[str, Decisions]
) -> None:
    """How far each row is behind the first model on the same conversations: resampled in pairs, so far sharper."""
    import numpy as np

    first, *_ = scores
    whole = np.all([score.whole for score in scores.values()], axis=0)
    size = np.array(scores[first].bytes, dtype=float)[whole]
    for row, score in scores.items():
        if row != first:
            more = (np.array(score.bits) - np.array(scores[first].bits))[whole]
            card.put(row, "bits_per_byte_behind", partial(ratio, more, size))
    for row, theirs in decisions.items():
        common = sorted(theirs.keys() & decisions[first].keys())
        if row != first and common:
            talks = [people[number] for number in common]
            sides = ([side[number] for number in common] for side in (decisions[first], theirs))
            card.put(row, "end_f1_behind", partial(f1_gain, talks, *sides))


def score_texts(
    card: Scorecard,
    sides: dict[str, Sequence[Conversation]],
    tools: Tools,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Diversity, intents, habits and distance from people, for conversations by row; the row `people` is the human one.

    People are compared with themselves, half against half.
    """
    word_counts = [sum(len(words(text)) for c in side for text in c.of("user")) for side in sides.values()]
    equal = min([EQUAL_WORDS, *(count for count in word_counts if count >= FEWEST_WORDS)])
    card.notes.append(f"distinct-n and self-BLEU: {equal:,} user words a row; first turns: at most {FIRST_TURNS:,}")
    people = sides.get(PEOPLE)
    for row, side in sides.items():
        say(f"{row}: {len(side):,} conversations")
        spoken = [conversation for conversation in side if conversation.of("user")]
        language = language_among(spoken)
        score_diversity(card, row, spoken, equal, tools)
        score_intents(card, row, spoken, language)
        if people is None:
            for metric in ("naturalness_auc", "rounds_distance"):
                card.leave_out(row, metric, "no people to compare with; give --data or --human")
            score_habits(card, row, side, None, language, tools)
        elif row == PEOPLE:
            score_habits(card, row, side[1::2], side[::2], language, tools, whole=side)
            score_naturalness(card, row, side[1::2], side[::2], tools)
        else:
            score_habits(card, row, side, people, language, tools)
            score_naturalness(card, row, spoken, people, tools)


def score_diversity(card: Scorecard, row: str, spoken: Sequence[Conversation], equal: int, tools: Tools) -> None:
    """First turns, distinct-n, MTLD, self-BLEU and topics."""
    draws = random.Random(tools.seed)
    openings = [words(conversation.of("user")[0]) for conversation in spoken]
    first = draws.sample(openings, min(FIRST_TURNS, len(openings)))
    owners, drawn_turns = _of_equal_words(draws.sample(spoken, len(spoken)), equal)
    card.put(row, "first_turn_diversity", lambda: jaccard_diversity(first, tools.seed))
    for order, grams in enumerate(Encoded(drawn_turns).grams(3), start=1):
        card.put(row, f"distinct_{order}", partial(_enough, drawn_turns, partial(distinct, grams, owners, tools.seed)))
    card.put(row, "mtld", lambda: mtld([words(" ".join(c.of("user"))) for c in spoken], tools.seed))
    card.put(row, "self_bleu", partial(_enough, drawn_turns, partial(self_bleu, drawn_turns, owners, tools.seed)))
    embedder = tools.embedder
    if embedder is not None:
        about = drawn(["\n".join(conversation.of("user")) for conversation in spoken], tools.seed)
        card.put(row, "topic_diversity", lambda: topic_diversity(embedder.embed(about), tools.seed))
    elif tools.no_embedder:
        card.leave_out(row, "topic_diversity", tools.no_embedder)


def _of_equal_words(conversations: Sequence[Conversation], most: int) -> tuple[Ints, list[list[str]]]:
    """User turns of conversations in order up to so many words, and which conversation each is of."""
    import numpy as np

    owners, turns, left = [], [], most
    for number, conversation in enumerate(conversations):
        for text in map(words, conversation.of("user")):
            if left > 0:
                owners.append(number)
                turns.append(text[:left])
                left -= len(text)
    return np.array(owners, dtype=np.int64), turns


def _enough(turns: Sequence[Sequence[str]], compute: Callable[[], Measurement]) -> Measurement:
    if (word_count := sum(map(len, turns))) < FEWEST_WORDS:
        raise ValueError(f"{word_count:,} words of users; {FEWEST_WORDS:,} are needed to compare rows")
    return compute()


def score_intents(card: Scorecard, row: str, spoken: Sequence[Conversation], language: str | None) -> None:
    """Overlap with the intent and coverage of it, where conversations carry one."""
    having = having_intents(spoken)
    for metric, compute in (("intent_overlap", decomposition), ("intent_coverage", coverage)):
        if not having:
            card.leave_out(row, metric, "conversations without an intent")
        elif language != "en":
            card.leave_out(row, metric, f"stop words are English; the texts are {language or 'of no language told'}")
        else:
            card.put(row, metric, partial(compute, having))


def score_habits(
    card: Scorecard,
    row: str,
    side: Sequence[Conversation],
    people: Sequence[Conversation] | None,
    language: str | None,
    tools: Tools,
    whole: Sequence[Conversation] | None = None,
) -> None:
    """Each habit's rate, and its distance from people's. `whole`: what the rate is of, where it is not `side`."""
    if any(conversation.ended is not None for conversation in side):
        card.put(row, ENDED.name, lambda: rate(_counted(ENDED, side)))
    tokens = tokens_per_turn(tools.count_tokens)
    for habit in (ROUNDS, *HABITS[:1], tokens, *HABITS[1:]):
        if habit.english and language != "en":
            reason = f"knows English only; the texts are {language or 'of no language told'}"
            card.leave_out(row, habit.name, reason)
            continue
        card.put(row, habit.name, lambda h=habit: rate(_counted(h, whole or side)))  # type: ignore[misc]
        if people is not None:
            compute = partial(_distance, habit, people, side)
            card.put(row, f"{habit.name}_distance", compute)


def score_naturalness(
    card: Scorecard, row: str, simulated: Sequence[Conversation], people: Sequence[Conversation], tools: Tools
) -> None:
    """The two-sample tests."""
    card.put(row, "naturalness_auc", lambda: two_sample_auc(people, simulated, tools.seed))
    folder, url = tools.encoder, tools.detector
    if folder is not None:
        card.put(
            row,
            "naturalness_auc_encoder",
            lambda: two_sample_auc(
                people, simulated, tools.seed, encoder(folder, seed=tools.seed), turns=ENCODER_TURNS, repeats=1
            ),
        )
    if url is not None:
        card.put(row, "naturalness_auc_detector", lambda: detector_auc(people, simulated, url, tools.seed))


def language_among(conversations: Sequence[Conversation]) -> str | None:
    """The language most of the users write; None: it cannot be told."""
    step = max(1, len(conversations) // _TOLD_FROM)
    languages = Counter(language_of("\n".join(c.of("user"))) for c in conversations[::step])
    languages.pop(None, None)
    return languages.most_common(1)[0][0] if languages else None


def _counted(habit: Habit, conversations: Sequence[Conversation]) -> Counted:
    counts = counted(habit, conversations)
    if not counts.conversations:
        cut = habit is ROUNDS and len(conversations) > 0
        raise ValueError("every conversation was cut at its source" if cut else "no conversation with a user turn")
    return counts


def _distance(habit: Habit, people: Sequence[Conversation], simulated: Sequence[Conversation]) -> Measurement:
    return distance(_counted(habit, people), _counted(habit, simulated))


def _to_power(bits_per_token: Measurement) -> Measurement:
    """Perplexity from bits per token: 2 to its power, the interval's ends too."""
    bits = bits_per_token
    return Measurement(2.0**bits.value, 2.0**bits.low, 2.0**bits.high, bits.n)
