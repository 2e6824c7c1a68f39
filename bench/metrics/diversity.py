"""Diversity of texts: distinct-n, MTLD, self-BLEU and Jaccard diversity.

Every figure is exact for the texts it is given; callers say how many.

Texts are lists of words (`bench.words`). What grows with the number of texts (distinct-n, self-BLEU) is comparable only
between equally many; callers draw equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.intervals import Measurement, bootstrap, ratio, subsampled
from bench.words import Encoded, Grams, Ints

Floats = NDArray[np.float64]

MTLD_THRESHOLD = 0.72
_EPSILON = 0.1


def jaccard_diversity(texts: Sequence[Sequence[str]], seed: int = 0) -> Measurement:
    """1 minus the mean Jaccard index of word sets over all pairs of texts; 1 = no two share a word.

    J(A, B) = |A ∩ B| / |A ∪ B|. Source: first-turn diversity of UserLM (arXiv:2510.06552), pairwise 1-gram Jaccard over
    2,000 first turns. Quadratic in the texts; the interval resamples texts, pairs of one with itself left out.
    """
    n = len(texts)
    if n < 2:
        raise ValueError(f"{n} texts; pairs need two")
    index = jaccard_matrix(texts)

    def diversity(rows: NDArray[np.intp]) -> float:
        times = np.bincount(rows, minlength=n).astype(np.float32)
        pairs = float(times.sum() ** 2 - (times**2).sum())
        return 1 - float(times @ index @ times) / max(pairs, 1.0)

    return bootstrap(n, diversity, seed)


def jaccard_matrix(texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """The Jaccard index of every pair of texts, 0 on the diagonal. Shape (n, n). Texts without words share nothing."""
    from scipy.sparse import csr_matrix

    n = len(texts)
    (grams,) = Encoded([sorted(set(text)) for text in texts]).grams(1)
    ones = np.ones(len(grams.gram), np.float32)
    sets = csr_matrix((ones, (grams.text, grams.gram)), shape=(n, max(grams.different, 1)))
    shared = (sets @ sets.T).toarray()
    sizes = shared.diagonal()
    index: NDArray[np.float32] = shared / np.maximum(sizes[:, None] + sizes[None, :] - shared, 1)
    np.fill_diagonal(index, 0)
    return index


def distinct(grams: Grams, owners: Ints, seed: int = 0) -> Measurement:
    """Different n-grams over all n-grams of the texts.

    Source: distinct-n of Li et al. (arXiv:1510.03055). The interval comes from subsamples of conversations: resampling
    with replacement would make repeats of its own.

    Args:
        owners: the conversation of each text, numbered from 0; (texts,).
    """
    conversations = int(owners.max(initial=-1)) + 1
    owner = owners[grams.text]

    def share(rows: NDArray[np.intp]) -> float:
        chosen = np.zeros(conversations, bool)
        chosen[rows] = True
        kept = grams.gram[chosen[owner]]
        hit = np.zeros(grams.different, bool)
        hit[kept] = True
        return float(hit.sum() / max(len(kept), 1))

    return subsampled(conversations, share, seed)


def mtld(texts: Sequence[Sequence[str]], seed: int = 0) -> Measurement:
    """Measure of textual lexical diversity (McCarthy and Jarvis, 2010): words per factor.

    A factor is a stretch in which the share of different words falls to 0.72; read forwards and backwards, the mean of
    both. One text gives what `lexicalrichness` gives. Over several texts words and factors are summed before dividing,
    and no factor goes over the end of a text: the user's words in one conversation are too few for a figure of their
    own.
    """
    counts = np.array([(len(text), *mtld_factors(text)) for text in texts if text], dtype=float).reshape(-1, 3)

    def value(rows: NDArray[np.intp]) -> float:
        length, forwards, backwards = counts[rows].sum(axis=0)
        return (_per_factor(length, forwards) + _per_factor(length, backwards)) / 2

    return bootstrap(len(counts), value, seed)


def mtld_of(text: Sequence[str]) -> float:
    """MTLD of one text of at least one word."""
    forwards, backwards = mtld_factors(text)
    return (_per_factor(len(text), forwards) + _per_factor(len(text), backwards)) / 2


def mtld_factors(text: Sequence[str]) -> tuple[float, float]:
    """Factors of a text read forwards and backwards; the last one counts in part, by how far it fell towards 0.72."""
    return _factors(text), _factors(text[::-1])


def _factors(text: Sequence[str]) -> float:
    factors, start, seen = 0, 0, set[str]()
    for end, word in enumerate(text, start=1):
        seen.add(word)
        if len(seen) / (end - start) <= MTLD_THRESHOLD:
            factors, start = factors + 1, end
            seen.clear()
    left = len(text) - start
    return factors + (1 - len(seen) / left) / (1 - MTLD_THRESHOLD) if left else float(factors)


def _per_factor(length: float, factors: float) -> float:
    """A text that repeats no word has no factor and counts as one."""
    return length / factors if factors else length


def self_bleu(texts: Sequence[Sequence[str]], owners: Ints, seed: int = 0) -> Measurement:
    """Mean BLEU-4 of each text against all the others; 1 = they repeat each other.

    Source: Texygen (arXiv:1802.01886), BLEU as in nltk with its smoothing method 1. Exact for any number of texts, and
    near-linear in their words: each n-gram of a text is clipped by its highest count in any other text, and the two
    highest counts of an n-gram are enough to know that. The interval resamples conversations with the scores of their
    texts; what they are compared with stays.

    Args:
        owners: the conversation of each text, numbered from 0; (texts,).
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts; comparing each with the others needs two")
    scores = bleu_against_others(texts)
    sums = np.bincount(owners, scores).astype(float)
    return ratio(sums, np.bincount(owners).astype(float), seed)


def bleu_against_others(texts: Sequence[Sequence[str]]) -> Floats:
    """BLEU-4 of each text against all the others, shape (n,)."""
    encoded = Encoded(texts)
    n, lengths = len(texts), encoded.lengths
    logs = np.zeros(n)
    matched = np.zeros(n)
    for order, grams in enumerate(encoded.grams(4), start=1):
        clipped = _clipped(grams, n)
        matched = clipped if order == 1 else matched
        total = np.maximum(lengths - order + 1, 1)
        logs += np.log(np.where(clipped > 0, clipped, _EPSILON) / total) / 4
    penalty = np.minimum(0.0, 1 - _closest_lengths(lengths) / np.maximum(lengths, 1))
    return np.where(matched > 0, np.exp(logs + penalty), 0.0)


def _clipped(grams: Grams, texts: int) -> Floats:
    """For each text, how many of its n-grams some other text has, each counted as often as that text has it. (n,)."""
    if not len(grams.gram):
        return np.zeros(texts)
    pairs, counts = np.unique(grams.gram * texts + grams.text, return_counts=True)
    gram, text = pairs // texts, pairs % texts
    order = np.lexsort((counts, gram))
    gram, text, counts = gram[order], text[order], counts[order]
    last = np.append(gram[1:] != gram[:-1], True)
    ends = np.flatnonzero(last)
    highest = counts[ends][gram]
    starts = np.append(0, ends[:-1] + 1)
    second = np.where(ends > starts, counts[np.maximum(ends - 1, 0)], 0)[gram]
    others = np.where(last, second, highest)
    return np.bincount(text, np.minimum(counts, others), texts).astype(float)


def _closest_lengths(lengths: Ints) -> Floats:
    """Of each text, the length among the others that is nearest to its own; the shorter of two. Shape (n,)."""
    if len(lengths) < 2:
        return lengths.astype(float)
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].astype(float)
    below = np.append(-np.inf, ordered[:-1])
    above = np.append(ordered[1:], np.inf)
    nearest = np.where(ordered - below <= above - ordered, below, above)
    result = np.empty(len(lengths))
    result[order] = nearest
    return result
