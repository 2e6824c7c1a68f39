"""Can simulated user turns be told from people's? AUC of whatever tries to: 0.5 = it cannot, 1 = always.

Classifier two-sample test (Lopez-Paz and Oquab, arXiv:1610.06545), equally many turns a side, cross-validated in folds
that never split a conversation and hold both sides in equal parts (else scores of different folds cannot be pooled).
Three classifiers: n-grams (always), a fine-tuned encoder, and a detector that was trained elsewhere and is asked over
HTTP. Nothing but the last one leaves this machine.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.intervals import Measurement, bootstrap
from selfplay.chat.conversation import Conversation
from selfplay.errors import BackendError, ModelError

FOLDS = 5
FEWEST = 10
"""Conversations a side: below, the classifier has nothing to learn from."""
TURNS = 20_000
"""Most turns of a side; more are drawn from at random."""
REPEATS = 3
"""Drawings of turns and folds that the figure is the mean of: one by itself varies by about .01."""
DETECTOR_TURNS = 500
PATTERN = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]"
"""Words and signs; Chinese and kana by character: nothing spaces them, and whole sentences never come again."""
DETECTOR_KEY = "SELFPLAY_DETECTOR_KEY"
_AT_ONCE = 8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Classifier = Callable[[list[str], Ints, list[str]], Floats]
"""(training texts, their labels, texts to judge) → probability of `simulated`."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Turns of both sides in equal number, labels (1 = simulated) and the conversation each belongs to; (N,).

    Conversations are numbered through, people's first, so that drawings can be taken together.
    """

    texts: list[str]
    labels: Ints
    groups: Ints


def two_sample_auc(
    people: Sequence[Conversation],
    simulated: Sequence[Conversation],
    seed: int = 0,
    classifier: Classifier | None = None,
    turns: int = TURNS,
    repeats: int = REPEATS,
) -> Measurement:
    """AUC of a classifier that tells simulated user turns from people's; left out, `ngrams`.

    The mean over `repeats` drawings of turns and folds.

    Raises:
        ValueError: a side has too few conversations with user turns.
    """
    for name, side in (("people", people), ("simulated", simulated)):
        if (spoken := sum(bool(conversation.of("user")) for conversation in side)) < FEWEST:
            raise ValueError(f"{spoken} conversations of {name} have user turns; the test needs {FEWEST} or more")
    judged = []
    for drawing in range(seed, seed + repeats):
        sides = balanced(people, simulated, drawing, turns)
        judged.append((sides, cross_validated(sides, classifier or ngrams, drawing)))
    return _auc(judged)


def cross_validated(sides: Sides, classifier: Classifier, seed: int = 0) -> Floats:
    """What a classifier says of each turn that was trained on the other folds; (N,)."""
    from sklearn.model_selection import StratifiedGroupKFold

    scores = np.zeros(len(sides.texts))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(sides.texts, sides.labels, sides.groups):
        training, judged = [sides.texts[row] for row in train], [sides.texts[row] for row in test]
        scores[test] = classifier(training, sides.labels[train], judged)
    return scores


def detector_auc(
    people: Sequence[Conversation], simulated: Sequence[Conversation], url: str, seed: int = 0
) -> Measurement:
    """AUC of a detector of machine-written text: POST {"text": ...}, answered by {"ai_likelihood": 0 to 1}.

    The key in $SELFPLAY_DETECTOR_KEY goes along as `x-api-key`. At most 500 turns a side are sent.
    Source: UserLM (arXiv:2510.06552) judges naturalness by such a detector.

    Raises:
        BackendError: the detector cannot be reached or answers something else.
    """
    sides = balanced(people, simulated, seed, DETECTOR_TURNS)
    return _auc([(sides, np.array(asyncio.run(_detect(url, sides.texts))))])


def balanced(people: Sequence[Conversation], simulated: Sequence[Conversation], seed: int, most: int) -> Sides:
    """Equally many user turns of both sides, at most `most` each, drawn at random."""
    turns = [
        [(text, first + number) for number, c in enumerate(side) for text in c.of("user")]
        for first, side in ((0, people), (len(people), simulated))
    ]
    size = min(most, *map(len, turns))
    picked = [random.Random(seed).sample(side, size) for side in turns]
    groups = np.array([group for side in picked for _, group in side], dtype=np.int64)
    return Sides([text for side in picked for text, _ in side], np.repeat([0, 1], size), groups)


def ngrams(texts: list[str], labels: Ints, judged: list[str]) -> Floats:
    """Logistic regression on TF-IDF word 1- and 2-grams, signs and case included."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=PATTERN, lowercase=False),
        LogisticRegression(max_iter=1000),
    )
    probabilities: Floats = model.fit(texts, labels).predict_proba(judged)[:, 1]
    return probabilities


def encoder(folder: Path, epochs: int = 1, seed: int = 0) -> Classifier:
    """A classifier that fine-tunes the encoder (or any language model) in `folder` on each fold.

    Raises:
        ModelError: nothing there that can be read.
    """
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder}: no model folder; give one with config.json, tokenizer and safetensors weights")

    def classify(texts: list[str], labels: Ints, judged: list[str]) -> Floats:
        import torch

        torch.manual_seed(seed)
        model, tokenizer = _classification_model(folder)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5)
        order = np.random.default_rng(seed).permutation(np.tile(np.arange(len(texts)), epochs))
        model.train()
        for batch in _chunks(order.tolist(), 32):
            loss = model(**tokenizer([texts[row] for row in batch]), labels=torch.tensor(labels[batch])).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        model.eval()
        with torch.inference_mode():
            logits = [model(**tokenizer(batch)).logits for batch in _chunks(judged, 64)]
        return torch.cat(logits).softmax(-1)[:, 1].double().numpy()

    return classify


def _classification_model(folder: Path) -> tuple[Any, Callable[[list[str]], Any]]:
    """The model with a new head of two classes, and its tokenizer ready for batches."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # that the head is new is meant
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype="float32")
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no encoder that can be read ({error})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, lambda texts: tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt",
                                          return_token_type_ids=False)  # fmt: skip


def _auc(judged: Sequence[tuple[Sides, Floats]]) -> Measurement:
    """Mean AUC of drawings and what was said of their turns, with an interval over the conversations in any of them."""
    from scipy.stats import rankdata

    drawn = np.unique(np.concatenate([sides.groups for sides, _ in judged]))
    drawings = [
        (np.searchsorted(drawn, sides.groups), sides.labels == 1, rankdata(scores, method="dense").astype(np.int64))
        for sides, scores in judged
    ]

    def auc(rows: NDArray[np.intp]) -> float:
        times = np.bincount(rows, minlength=len(drawn)).astype(float)
        return float(np.mean([_above(times[groups], simulated, ranks) for groups, simulated, ranks in drawings]))

    return bootstrap(len(drawn), auc)


def _above(times: Floats, simulated: NDArray[np.bool_], ranks: Ints) -> float:
    """P(simulated scores above people), ties half: from counts by score, without sorting again (Mann-Whitney).

    Args:
        times: how often each turn is there.
    """
    machine, human = np.bincount(ranks, times * simulated), np.bincount(ranks, times * ~simulated)
    below = np.cumsum(human) - human
    return float(machine @ (below + human / 2) / max(machine.sum() * human.sum(), 1))


async def _detect(url: str, texts: Sequence[str]) -> list[float]:
    import aiohttp

    key = os.environ.get(DETECTOR_KEY)
    headers = {"x-api-key": key} if key else {}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(text: str) -> float:
        async with slots, session.post(url, json={"text": text}) as reply:
            reply.raise_for_status()
            likelihood = float((await reply.json())["ai_likelihood"])
            if not 0 <= likelihood <= 1:
                raise ValueError(f"ai_likelihood {likelihood} is not between 0 and 1")
            return likelihood

    try:
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(60)) as session:
            return await asyncio.gather(*map(ask, texts))
    except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
        raise BackendError(
            f'detector {url}: {type(error).__name__} {error}; expected {{"ai_likelihood": 0 to 1}} for {{"text": ...}}'
        ) from error


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
