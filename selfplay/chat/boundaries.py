"""Boundaries of texts: how a tokenizer encodes a text that continues another one.

SentencePiece tokenizers put a space before every text they are given, which is right at the beginning and wrong in the
middle. Byte-level tokenizers put none; for them nothing here matters. A text that continues another is encoded behind a
line break, which never merges with what follows, and the tokens of the break are taken away again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BREAK = "\n"


class Boundary:
    """What one tokenizer does at the beginning of a text."""

    def __init__(
        self, encode: Callable[[Sequence[str]], list[list[int]]], after_special: Callable[[str], list[int]]
    ) -> None:
        """Try it out.

        Args:
            encode: ids of plain texts, each on its own.
            after_special: ids of a text that stands behind a special token.
        """
        self._encode = encode
        alone, self.break_ids, behind = encode(["a", BREAK, BREAK + "a"])
        self.matters = behind != [*self.break_ids, *alone]
        """Whether a text has other ids in the middle than at the beginning."""
        self.joins_after_special = self.matters and after_special("a") != alone
        """Whether a text behind a special token counts as one in the middle."""

    def encode(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Ids of (text, whether it continues another)."""
        if not self.matters:
            return self._encode([text for text, _ in texts])
        found = self._encode([BREAK + text if continues else text for text, continues in texts])
        skip = len(self.break_ids)
        return [ids[skip:] if continues else ids for ids, (_, continues) in zip(found, texts, strict=True)]
