"""Length estimate of conversations, learned from the run itself while most of them still go on."""

from __future__ import annotations


class LengthEstimate:
    """Expected final length of one side's token history.

    Conversations in flight are censored: a mean over finished ones alone would be too short, since short ones finish
    first. All tokens grown so far, in flight or finished, divided by the number of endings is the maximum-likelihood
    mean under a constant hazard and counts both. One imagined conversation of the longest possible length stands in
    until there are real endings, so that a run starts cautiously.
    """

    __slots__ = ("_ended", "_grown")

    def __init__(self, longest: int) -> None:
        self._grown = longest
        self._ended = 1

    def grew(self, tokens: int) -> None:
        """A history got longer by this many tokens."""
        self._grown += tokens

    def ended(self) -> None:
        """A history is complete."""
        self._ended += 1

    @property
    def final(self) -> float:
        """Expected final length in tokens."""
        return self._grown / self._ended
