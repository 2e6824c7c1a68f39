"""Overlap of texts with benchmark questions, by long n-grams of words: training on them would spoil it.

Source: GPT-3 (arXiv:2005.14165), appendix C: a collision of 13 words. Shorter questions count as a whole, from
8 words on; shorter ones would be met by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.words import words

LENGTH = 13
SHORTEST = 8


class Overlap:
    """The n-grams of questions, ready to be looked for."""

    def __init__(self, questions: Iterable[str]) -> None:
        """Take the n-grams of every question's turns."""
        self._grams: set[tuple[str, ...]] = set()
        self._whole: set[str] = set()
        self.too_short = 0
        """Turns of fewer than 8 words, which are not looked for."""
        for question in questions:
            tokens = words(question)
            if len(tokens) >= LENGTH:
                self._grams.update(tuple(tokens[at : at + LENGTH]) for at in range(len(tokens) - LENGTH + 1))
            elif len(tokens) >= SHORTEST:
                self._whole.add(f" {' '.join(tokens)} ")
            else:
                self.too_short += 1
        self._known = frozenset(word for gram in self._grams for word in gram)

    def holds(self, text: Sequence[str]) -> bool:
        """Whether a text, as words, shares an n-gram with a question."""
        run = 0  # words up to here that questions use at all: most texts never have 13 in a row
        for at, word in enumerate(text, start=1):
            run = run + 1 if word in self._known else 0
            if run >= LENGTH and tuple(text[at - LENGTH : at]) in self._grams:
                return True
        joined = f" {' '.join(text)} " if self._whole else ""
        return any(question in joined for question in self._whole)
