r"""Page artefacts: what a chat page adds to a conversation that is copied or scraped from it.

"Copy code"   the button of a code block: at the top of a fence, after its language, or a line of its own in the text
"2 / 3"       the pager of edited questions and regenerated answers: the first or last line of a turn
"Copy12 chars / 2 words"   the footer of a reply

Taken out only where the page puts them; the same words in a sentence, in code or as an answer stay.
Source: the ShareGPT cleaning of lm-sys/FastChat lists the same ones.
"""

from __future__ import annotations

import re

from selfplay.chat.conversation import Role
from selfplay.data.cleaning.fences import split_blocks

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([\w+#.-]*)")
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")
_BUTTON = "Copy code"
_LINES = re.compile(r"^[ \t]*(?:Copy code|Copy\d+ chars / \d+ words)[ \t]*(?:\n|\Z)", re.M)
_FIRST_LINE = re.compile(r"\A\s*(\d{1,3}) / (\d{1,3})[ \t]*\n")
_LAST_LINE = re.compile(r"\n[ \t]*(\d{1,3}) / (\d{1,3})\s*\Z")


def without_artefacts(role: Role, text: str) -> str:
    """The turn as it was typed or answered, or the very same text."""
    if "Copy" in text:
        parts = split_blocks(text)
        parts[::2] = [_LINES.sub("", part) for part in parts[::2]]
        parts[1::2] = [_without_button(block) for block in parts[1::2]]
        text = "".join(parts)
    if " / " in text:
        text = _FIRST_LINE.sub(_unless_pager, text)
        if role == "user":  # the last line of a reply may be its result
            text = _LAST_LINE.sub(_unless_pager, text)
    return text


def _without_button(block: str) -> str:
    """A fenced block without the button at its top; the language it stood behind goes to the fence."""
    first, *rest = block.split("\n", 3)
    match = _FENCE.match(first)
    if match is None or _BUTTON not in "".join([first, *rest[:2]]):
        return block
    fence, language = match[1], match[2]
    if first.endswith(_BUTTON):
        # ```pythonCopy code
        return _joined(fence, first[len(fence) : -len(_BUTTON)].strip(), rest)
    if rest and rest[0].strip() == _BUTTON:
        # ```python
        # Copy code
        return _joined(fence, language, rest[1:])
    if rest and (glued := _glued(rest[0], language)) is not None:
        # ```
        # pythonCopy code
        found, code = glued
        return _joined(fence, found, [*([code] if code else []), *rest[1:]])
    if len(rest) > 1 and not language and _LANGUAGE.fullmatch(rest[0].strip()) and rest[1].strip() == _BUTTON:
        # ```
        # python
        # Copy code
        return _joined(fence, rest[0].strip(), rest[2:])
    return block


def _glued(line: str, language: str) -> tuple[str, str] | None:
    """`pythonCopy codeprint()` as the language and the code after it."""
    before, button, after = line.strip().partition(_BUTTON)
    if button and _LANGUAGE.fullmatch(before) and language in ("", before):
        return before, after
    return None


def _joined(fence: str, language: str, lines: list[str]) -> str:
    return "\n".join([f"{fence}{language}", *lines])


def _unless_pager(match: re.Match[str]) -> str:
    return "" if 1 <= int(match[1]) <= int(match[2]) else match[0]
