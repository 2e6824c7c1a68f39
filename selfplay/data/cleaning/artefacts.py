r"""What a chat page adds to a conversation that is copied or scraped from it.

"Copy code"   the button of a code block: on the first line of a fence, with the language before it, or a line alone
"2 / 3"       the pager of edited questions and regenerated answers: the first or last line of a turn
"Copy12 chars / 2 words"   the footer of a reply

Taken out only where the page puts them; the same words in a sentence, in code or as an answer stay.
Source: the ShareGPT cleaning of lm-sys/FastChat lists the same ones.
"""

from __future__ import annotations

import re

from selfplay.chat.conversation import Role

_FENCE = re.compile(r"^```[ \t]*([\w+#.-]*?)[ \t]*(?:\n[ \t]*([\w+#.-]*?))?[ \t]*\n?Copy code[ \t]*\n?", re.M)
_BLOCKS = re.compile(r"(^```.*?(?:^```|\Z))", re.S | re.M)
_BUTTON = re.compile(r"^[ \t]*Copy code[ \t]*(?:\n|\Z)", re.M)
_FOOTER = re.compile(r"^Copy\d+ chars / \d+ words[ \t]*(?:\n|\Z)", re.M)
_FIRST_LINE = re.compile(r"\A\s*(\d{1,3}) / (\d{1,3})[ \t]*\n")
_LAST_LINE = re.compile(r"\n[ \t]*(\d{1,3}) / (\d{1,3})\s*\Z")


def without_artefacts(role: Role, text: str) -> str:
    """The turn as it was typed or answered, or the very same text."""
    if "Copy" in text:
        text = _FENCE.sub(lambda match: f"```{match[2] or match[1]}\n", text)
        parts = _BLOCKS.split(text)
        parts[::2] = [_FOOTER.sub("", _BUTTON.sub("", part)) for part in parts[::2]]
        text = "".join(parts)
    if " / " in text:
        text = _FIRST_LINE.sub(_unless_pager, text)
        if role == "user":  # the last line of a reply may be its result
            text = _LAST_LINE.sub(_unless_pager, text)
    return text


def _unless_pager(match: re.Match[str]) -> str:
    return "" if 1 <= int(match[1]) <= int(match[2]) else match[0]
