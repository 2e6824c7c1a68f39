"""Which user turns copy long stretches of the turns a simulator was trained on.

A stretch is 50 consecutive characters, case and spacing aside. Every stretch of the training turns is hashed
(polynomial modulo 2**64, all windows of a text at once); a generated turn copies where its own stretches are among
them. What is shown is the longest run of copied stretches in a turn, which may join pieces of several training turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selfplay.chat.drift import normalise

STRETCH = 50
"""Characters."""
WORST = 10
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))

Words = NDArray[np.uint64]


@dataclass(slots=True)
class Copies:
    """Turns that copy, of how many, and the longest copies with the conversation each is of."""

    turns: int = 0
    copying: int = 0
    worst: list[tuple[str, str]] = field(default_factory=list)
    """(conversation, copied text)."""

    @property
    def share(self) -> float:
        """Of all turns."""
        return self.copying / self.turns if self.turns else 0.0


class Memorised:
    """Stretches of training turns, ready to be looked for."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take every stretch of the texts."""
        found = [_stretches(normalise(text)) for text in texts]
        self._known: Words = np.unique(np.concatenate([*found, np.empty(0, np.uint64)]))
        self.copies = Copies()

    def __len__(self) -> int:
        return len(self._known)

    def look(self, conversation: str, texts: Sequence[str]) -> None:
        """Count a conversation's turns."""
        for text in texts:
            self.copies.turns += 1
            if copied := self.copied(text):
                self.copies.copying += 1
                self.copies.worst.append((conversation, copied))
        if len(self.copies.worst) > 4 * WORST:
            self._shorten()

    def finished(self) -> Copies:
        """The counts, and the longest copies alone."""
        self._shorten()
        return self.copies

    def copied(self, text: str) -> str:
        """The longest copied stretch of a text; empty where there is none."""
        plain = normalise(text)
        found = _among(self._known, _stretches(plain))
        if not found.any():
            return ""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], found.astype(np.int8), [0]])))
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        return plain[starts[longest] : ends[longest] - 1 + STRETCH]

    def _shorten(self) -> None:
        self.copies.worst.sort(key=lambda case: -len(case[1]))
        del self.copies.worst[WORST:]


def _among(known: Words, asked: Words) -> NDArray[np.bool_]:
    """Which values are among sorted ones."""
    if not len(known):
        return np.zeros(len(asked), bool)
    places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.asarray(known[places] == asked)


def _stretches(text: str) -> Words:
    """Hashes of all windows of a text, (len(text) - STRETCH + 1,); none of a shorter one."""
    if len(text) < STRETCH:
        return np.empty(0, np.uint64)
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)
    powers = np.cumprod(np.full(len(letters), _BASE))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * powers)])
    windows = sums[STRETCH:] - sums[:-STRETCH]
    return np.asarray(windows * np.cumprod(np.full(len(windows), _INVERSE)), np.uint64)
