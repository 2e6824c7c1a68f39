"""Memorisation check: which user turns copy long stretches of the turns that a simulator was trained on.

A stretch is 50 consecutive characters, regardless of case and spacing. Every stretch of the training turns is hashed
(polynomial modulo 2**64, all windows of a text at once); a generated turn copies where its own stretches are among
them. The check counts copies and drops nothing.

Trap: the reported text is the longest run of copied stretches in a turn, which may join pieces of several training
turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selfplay.chat.drift import normalise

STRETCH = 50
"""Length of a stretch in characters."""
WORST = 10
"""Number of longest copies that are reported."""
# The hash relies on uint64 overflow; an odd base has an inverse modulo 2**64.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))

Words = NDArray[np.uint64]


@dataclass(slots=True)
class Copies:
    """Counts of user turns and of copying user turns, and the longest copies."""

    turns: int = 0
    copying: int = 0
    worst: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of (conversation id, copied text)."""

    @property
    def share(self) -> float:
        """The share of all turns that copy."""
        return self.copying / self.turns if self.turns else 0.0


class Memorised:
    """Index of the stretches of the training turns, and the counts of copies found with it."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Index every stretch of the texts."""
        hashes = [_stretches(normalise(text)) for text in texts]
        # The empty array lets concatenate work where there are no texts.
        self._known: Words = np.unique(np.concatenate([*hashes, np.empty(0, np.uint64)]))
        self.copies = Copies()

    def __len__(self) -> int:
        return len(self._known)

    def look(self, conversation: str, texts: Sequence[str]) -> None:
        """Look up the turns of one conversation and count the copies."""
        for text in texts:
            self.copies.turns += 1
            if copied := self.copied(text):
                self.copies.copying += 1
                self.copies.worst.append((conversation, copied))
        # The list is cut now and then, so that memory does not grow with the copies.
        if len(self.copies.worst) > 4 * WORST:
            self._shorten()

    def finished(self) -> Copies:
        """Return the counts with only the `WORST` longest copies."""
        self._shorten()
        return self.copies

    def copied(self, text: str) -> str:
        """Return the longest copied run of a text; an empty string where nothing is copied."""
        plain = normalise(text)
        copies = _among(self._known, _stretches(plain))
        if not copies.any():
            return ""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], copies.astype(np.int8), [0]])))
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        return plain[starts[longest] : ends[longest] - 1 + STRETCH]

    def _shorten(self) -> None:
        self.copies.worst.sort(key=lambda case: -len(case[1]))
        del self.copies.worst[WORST:]


def _among(index: Words, asked: Words) -> NDArray[np.bool_]:
    """Return for each asked value whether it is in a sorted index."""
    if not len(index):
        return np.zeros(len(asked), bool)
    places = np.minimum(np.searchsorted(index, asked), len(index) - 1)
    return np.asarray(index[places] == asked)


def _stretches(text: str) -> Words:
    """Hash all windows of a text: shape (len(text) - STRETCH + 1,), or (0,) where the text is too short."""
    if len(text) < STRETCH:
        return np.empty(0, np.uint64)
    # utf-32 gives one integer a character; one is added because a zero would leave no trace in the sums.
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)
    powers = np.cumprod(np.full(len(letters), _BASE))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * powers)])
    windows = sums[STRETCH:] - sums[:-STRETCH]
    # The inverse powers take the position out of a window's hash, so that equal texts have equal hashes anywhere.
    return np.asarray(windows * np.cumprod(np.full(len(windows), _INVERSE)), np.uint64)
