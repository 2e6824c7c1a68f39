"""Statistics of a conversation corpus, as in the comparison tables of papers, in one pass and bounded memory.

The module does not know where conversations come from (`bench.corpus.run`).

dialogues, rounds        counted; rounds are answered user turns
tokens                   per user turn, assistant turn and dialogue, by a named tokenizer
MTLD                     mean over dialogues of the MTLD of all their words (UltraChat, arXiv:2305.14233)
topic diversity          1 minus the mean cosine between dialogues; coherence: mean cosine of adjacent turns; both of a
                         reservoir sample of 2,000 dialogues (Vitter 1985, algorithm R), by a named embedding model
languages                share of dialogues by the language their user writes
duplicates               share of dialogues that say word for word what an earlier one says; and of first turns
questions                share of dialogues that hold a benchmark question (`bench.overlap`)

Memory does not grow with the corpus: digests are on the disk, sums and the sample in memory. Intervals are not
bootstrapped, since that would need all dialogues: they are normal intervals over dialogues, from sums of squares (of
ratios by the delta method), and Wilson's for shares.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from bench.intervals import Measurement
from bench.metrics.diversity import mtld_of
from bench.metrics.embeddings import SAMPLE, Embedder, coherence, topic_diversity
from bench.metrics.overlap import Overlap
from bench.words import words
from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.duplicates import ExactDuplicates, text_digest
from selfplay.data.cleaning.language import language_of

_Z = 1.959964
LANGUAGES = 3
"""The most languages that have a row of their own."""

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Maps texts to their numbers of tokens."""


@dataclass(slots=True)
class Mean:
    """Running ratio of sums, Σx / Σy, over dialogues; with y = 1 it is a mean."""

    n: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def add(self, x: float, y: float = 1.0) -> None:
        """Add one dialogue."""
        self.n += 1
        self.x += x
        self.y += y
        self.xx += x * x
        self.xy += x * y
        self.yy += y * y

    def estimate(self) -> Measurement | None:
        """The figure with its interval; None if Σy is 0."""
        if not self.y:
            return None
        value = self.x / self.y
        squares = max(0.0, self.xx - 2 * value * self.xy + value**2 * self.yy)
        error = _Z * math.sqrt(squares * self.n / max(self.n - 1, 1)) / self.y
        return Measurement(value, value - error, value + error, self.n)


@dataclass(slots=True)
class Described:
    """The statistics of one corpus. `figures`: by the name of the metric, in the order of the table."""

    name: str
    dialogues: int
    figures: dict[str, Measurement]
    refused: int = 0
    """Number of rows of the source that are not conversations."""


@dataclass(slots=True)
class _Sums:
    rounds: Mean = field(default_factory=Mean)
    user: Mean = field(default_factory=Mean)
    assistant: Mean = field(default_factory=Mean)
    dialogue: Mean = field(default_factory=Mean)
    mtld: Mean = field(default_factory=Mean)
    languages: Counter[str] = field(default_factory=Counter)
    questions: int = 0


class Describer:
    """Collector of corpus statistics: add batches of conversations, then call `described`.

    Digests are written to files in `folder`, which must be empty.
    """

    def __init__(self, name: str, folder: Path, count_tokens: CountTokens, overlap: Overlap | None = None) -> None:
        """Create the collector and its files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "first").mkdir()
        self._name, self._count, self._overlap = name, count_tokens, overlap
        self._dialogues = ExactDuplicates(folder)
        self._openings = ExactDuplicates(folder / "first")
        self._sums = _Sums()
        self._sample: list[Conversation] = []
        self._draws = random.Random(0)
        self.n = 0

    def add(self, batch: Sequence[Conversation]) -> None:
        """Add a batch of conversations."""
        if not batch:
            return
        texts = [turn.content for conversation in batch for turn in conversation.turns]
        tokens = iter(self._count(texts))
        for conversation in batch:
            counts = [next(tokens) for _ in conversation.turns]
            self._count_turns(conversation, counts)
            self._look(conversation)
        self._dialogues.add(b"".join(text_digest(conversation) for conversation in batch))
        self._openings.add(b"".join(_opening_digest(conversation) for conversation in batch))

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._dialogues.close()
        self._openings.close()

    def described(self, embedder: Embedder | None = None) -> Described:
        """Compute all figures. Nothing can be added afterwards."""
        sums, n = self._sums, self.n
        figures: dict[str, Measurement | None] = {
            "rounds": sums.rounds.estimate(),
            "tokens_per_user_turn": sums.user.estimate(),
            "tokens_per_assistant_turn": sums.assistant.estimate(),
            "tokens_per_dialogue": sums.dialogue.estimate(),
            "mtld": sums.mtld.estimate(),
            **self._by_embeddings(embedder),
        }
        for language, count in sums.languages.most_common(LANGUAGES):
            figures[f"language_{language}"] = share(count, n)
        figures["repeated_dialogues"] = share(self._dialogues.drop(np.ones(n, bool)), n)
        figures["repeated_first_turns"] = share(self._openings.drop(np.ones(n, bool)), n)
        if self._overlap is not None:
            figures["with_benchmark_question"] = share(sums.questions, n)
        return Described(self._name, n, {name: figure for name, figure in figures.items() if figure is not None})

    def _count_turns(self, conversation: Conversation, counts: Sequence[int]) -> None:
        by_role: dict[str, list[int]] = {"user": [], "assistant": [], "system": []}
        for turn, count in zip(conversation.turns, counts, strict=True):
            by_role[turn.role].append(count)
        sums = self._sums
        sums.rounds.add(conversation.rounds)
        sums.user.add(sum(by_role["user"]), len(by_role["user"]))
        sums.assistant.add(sum(by_role["assistant"]), len(by_role["assistant"]))
        sums.dialogue.add(sum(by_role["user"]) + sum(by_role["assistant"]))

    def _look(self, conversation: Conversation) -> None:
        """Update MTLD, languages, benchmark questions and the reservoir sample."""
        text = words(" ".join(turn.content for turn in conversation.turns if turn.role != "system"))
        if text:
            self._sums.mtld.add(mtld_of(text))
        self._sums.languages[language_of("\n".join(conversation.of("user"))) or "not told"] += 1
        if self._overlap is not None and self._overlap.holds(text):
            self._sums.questions += 1
        self.n += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(conversation)
        elif (place := self._draws.randrange(self.n)) < SAMPLE:
            self._sample[place] = conversation

    def _by_embeddings(self, embedder: Embedder | None) -> dict[str, Measurement | None]:
        if embedder is None or len(self._sample) < 2:
            return {}
        texts = ["\n".join(turn.content for turn in c.turns if turn.role != "system") for c in self._sample]
        return {
            "topic_diversity": topic_diversity(embedder.embed(texts)),
            "coherence": coherence(self._sample, embedder),
        }


def share(count: int, n: int) -> Measurement:
    """A share with its Wilson interval (Wilson, 1927)."""
    if not n:
        return Measurement(0.0, 0.0, 1.0, 0)
    p, z = count / n, _Z
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Measurement(p, max(0.0, centre - spread), min(1.0, centre + spread), n)


def _opening_digest(conversation: Conversation) -> bytes:
    first = next(iter(conversation.of("user")), "")
    return blake2b(" ".join(first.casefold().split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
