"""Topic diversity and coherence, by a sentence-transformers model that the user names.

Nothing is fetched but a hub model they name.

topic diversity   1 minus the mean cosine similarity over all pairs of texts (UltraChat, arXiv:2305.14233, compares
                  corpora by the mean cosine distance of their embeddings). Exact up to SAMPLE texts, a sample beyond.
coherence         mean cosine similarity of adjacent turns of a conversation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.intervals import Measurement, bootstrap, ratio
from selfplay.chat.conversation import Conversation
from selfplay.errors import MissingPackage, ModelError

SAMPLE = 2000
_BATCH = 64

Vectors = NDArray[np.float32]


class Embedder:
    """A sentence-transformers model; its vectors have length 1, so that their products are cosines."""

    def __init__(self, name: str) -> None:
        """Load a model folder or hub name.

        Raises:
            MissingPackage: sentence-transformers is not installed.
            ModelError: the model cannot be read.
        """
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging
        except ImportError as error:
            raise MissingPackage("embeddings need sentence-transformers; `pip install 'selfplay[bench]'`") from error
        logging.disable_progress_bar()
        try:
            # Half precision is slow on CPUs, and pairs of near-equal texts need more digits.
            settings = {"dtype": "float32"}
            self._model: Any = SentenceTransformer(name, trust_remote_code=False, model_kwargs=settings)
        except (OSError, ValueError) as error:
            raise ModelError(f"{name}: no sentence-transformers model that can be read ({error})") from error
        self.name = name

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, (n, dimensions)."""
        vectors: Vectors = self._model.encode(
            list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return vectors


def topic_diversity(vectors: Vectors, seed: int = 0) -> Measurement:
    """1 minus the mean cosine over pairs; the interval resamples texts, pairs of one with itself left out."""
    if len(vectors) < 2:
        raise ValueError(f"{len(vectors)} texts; pairs need two")
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, 0)
    n = len(vectors)

    def diversity(rows: NDArray[np.intp]) -> float:
        times = np.bincount(rows, minlength=n).astype(np.float32)
        return 1 - float(times @ cosines @ times) / max(float(times.sum() ** 2 - (times**2).sum()), 1.0)

    return bootstrap(n, diversity, seed)


def coherence(conversations: Sequence[Conversation], embedder: Embedder) -> Measurement:
    """Mean cosine of each turn with the one before it; conversations weigh by their turns."""
    texts = [[turn.content for turn in c.turns if turn.role != "system"] for c in conversations]
    vectors = embedder.embed([text for turns in texts for text in turns])
    sums, pairs, start = [], [], 0
    for turns in texts:
        own = vectors[start : start + len(turns)]
        start += len(turns)
        sums.append(float((own[1:] * own[:-1]).sum()))
        pairs.append(max(len(turns) - 1, 0))
    return ratio(np.array(sums), np.array(pairs, dtype=float))


def drawn(texts: Sequence[str], seed: int = 0) -> list[str]:
    """The texts, or SAMPLE of them."""
    return list(texts) if len(texts) <= SAMPLE else random.Random(seed).sample(list(texts), SAMPLE)
