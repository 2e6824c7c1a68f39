"""Tokeniser of texts into words, and their n-grams, as every metric of texts in `bench` counts them.

It has nothing to do with the tokens of a model.

word     letters and digits of any script with the apostrophes and hyphens inside them, in lower case; each Chinese
         character and kana is a word of its own, since nothing spaces them (Thai and its like stay runs).
n-grams  runs of n words inside one text, as rows of integers, so that any number of them is counted without hashing
         strings twice.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_ASCII_WORD = regex.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_RUN = rf"[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
_WORD = regex.compile(rf"[{_UNSPACED}]|{_RUN}(?:['-]{_RUN})*", regex.V1)
COUNTED_AS = "words: runs of letters and digits, Chinese characters and kana one by one"
"""Description of how texts were split into words, for reports."""


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    lower = text.lower()
    if lower.isascii():  # the same words by a simpler pattern
        return list(_ASCII_WORD.findall(lower))
    return list(_WORD.findall(unicodedata.normalize("NFC", lower).replace("’", "'")))


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of many texts.

    Attributes:
        gram: the number of each n-gram, equal for equal n-grams and counted from 0; (N,).
        text: the number of the text in which each occurs; (N,).
    """

    gram: Ints
    text: Ints

    @property
    def different(self) -> int:
        """The number of distinct n-grams."""
        return int(self.gram.max()) + 1 if len(self.gram) else 0


class Encoded:
    """Texts encoded as integers, one for each distinct word.

    Shapes: `ids` (N,), all words of all texts in order; `lengths` (texts,).
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """Encode texts that are lists of words."""
        vocabulary: dict[str, int] = {}
        number: Any = vocabulary.setdefault
        self.ids: Ints = np.fromiter((number(word, len(vocabulary)) for word in chain(*texts)), np.int64)
        self.lengths: Ints = np.fromiter(map(len, texts), np.int64, len(texts))

    def grams(self, highest: int) -> list[Grams]:
        """The n-grams of order 1 to `highest`. Exact: each order numbers pairs of n-grams of the order below."""
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        gram = _numbered(self.ids)
        result = [Grams(gram, text)]
        for _ in range(2, highest + 1):
            # An n-gram starts wherever the (n-1)-gram and the one a word later stand in one text.
            pairs = gram[:-1] * (int(gram.max(initial=0)) + 1) + gram[1:] if len(gram) else gram
            inside = text[1:] == text[:-1]
            # Of the order below only those that start in one text are left, so neighbours overlap in all but two words.
            gram, text = _numbered(pairs[inside]), text[:-1][inside]
            result.append(Grams(gram, text))
        return result


def _numbered(values: Ints) -> Ints:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
