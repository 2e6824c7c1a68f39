"""Text apart from code: fenced blocks (three or more of ` or ~, closed by as many) and inline code, as in Markdown."""

from __future__ import annotations

import re

_FENCED = re.compile(r"(^(`{3,}|~{3,})[^\n]*(?:\n.*?(?:^\2[`~]*[ \t]*$|\Z)|\Z))", re.S | re.M)
_INLINE = re.compile(r"(`[^`\n]+`)")


def split_blocks(text: str) -> list[str]:
    """The text cut so that every second part is a fenced block; joined, the parts are the text."""
    if "```" not in text and "~~~" not in text:
        return [text]
    parts = _FENCED.split(text)
    return [part for number, part in enumerate(parts) if number % 3 != 2]  # without the inner group


def split_code(text: str) -> list[str]:
    """The text cut so that every second part is a fenced block or inline code."""
    parts: list[str] = []
    for number, block in enumerate(split_blocks(text)):
        parts += [block] if number % 2 else _INLINE.split(block)
    return parts
