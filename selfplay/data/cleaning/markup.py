r"""HTML to Markdown, where a turn is HTML: as scraped from a chat page, not as a person writes about it.

A turn is converted when, as a whole, it is the HTML that a Markdown renderer makes: it starts and ends with a tag, all
its elements are of that kind, and they close. Inline HTML is valid Markdown and stays, as does source code that someone
asks about: `a < b`, `List<int>`, an unfenced component, a page with <form> or <script>. Only <br> is taken out of plain
text, and not out of table cells, code or "the <br> tag".
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from selfplay.data.cleaning.fences import split_code

if TYPE_CHECKING:
    from html_to_markdown import ConversionOptions

_RENDERED = frozenset(
    re.findall(
        r"\w+",
        "p br hr h1 h2 h3 h4 h5 h6 strong b em i u s del a img code pre ul ol li blockquote sup sub input "
        "table thead tbody tr th td",
    )
)
"""What a Markdown renderer writes (`input`: the box of a task list)."""
_WRAPPERS = frozenset(("div", "span", "button", "svg", "path", "polyline", "rect", "circle", "line", "g"))
"""What a chat page puts around it; trusted only beside a class that says so."""
_SOURCE = frozenset(
    re.findall(
        r"\w+",
        "html head body title meta link script style noscript template form label select option textarea fieldset nav "
        "header footer main section article aside figure figcaption iframe video audio source canvas object embed "
        "center font small big tt kbd samp var mark abbr cite q dl dt dd details summary caption col colgroup tfoot",
    )
)
"""What only the source of a page has."""
_HTML = _RENDERED | _WRAPPERS | _SOURCE
_VOID = frozenset(("br", "hr", "img", "input", "path", "polyline", "rect", "circle", "line"))
_TAG = re.compile(rf"<(/?)({'|'.join(sorted(_HTML, key=len, reverse=True))})((?:\s[^<>]*)?)(/?)>", re.I)
_PAGE_CLASS = re.compile(r"""class=["'][^"']*\b(?:markdown|prose|whitespace-pre-wrap|hljs)\b""")
_BREAK = re.compile(r"(?<=\S)<br ?/?>[ \t]*\n?")


def html_to_markdown(text: str) -> str:
    """The turn as Markdown, or the very same text where it is not HTML."""
    if "<" not in text:
        return text
    names = {match[2].lower() for match in _TAG.finditer(text)}
    if not names:
        return text
    if names == {"br"}:
        return _without_breaks(text)
    return _converted(text) if _is_rendered(text, names) else text


def _is_rendered(text: str, names: set[str]) -> bool:
    allowed = _RENDERED | _WRAPPERS if _PAGE_CLASS.search(text) else _RENDERED
    whole = text.strip()
    if not names <= allowed or "```" in text or not whole.endswith(">") or not _TAG.match(whole):
        return False
    return _closes(whole)


def _closes(text: str) -> bool:
    """Whether every element is closed in turn."""
    open_elements: list[str] = []
    for match in _TAG.finditer(text):
        name = match[2].lower()
        if name in _VOID or match[4]:
            continue
        if not match[1]:
            open_elements.append(name)
        elif not open_elements or open_elements.pop() != name:
            return False
    return not open_elements


def _converted(text: str) -> str:
    from html_to_markdown import convert

    # `List<int>` and `x<y` inside a paragraph are text: a parser would take them for elements and drop them.
    parts: list[str] = []
    end = 0
    for match in _TAG.finditer(text):
        parts += [text[end : match.start()].replace("<", "&lt;"), match[0]]
        end = match.end()
    parts.append(text[end:].replace("<", "&lt;"))
    return (convert("".join(parts), _options()).content or "").strip()


def _without_breaks(text: str) -> str:
    """<br> as a new line, outside code and table rows."""
    parts = split_code(text)
    parts[::2] = ["".join(map(_break_lines, part.splitlines(keepends=True))) for part in parts[::2]]
    return "".join(parts)


def _break_lines(line: str) -> str:
    return line if "|" in line else _BREAK.sub("\n", line)


@cache
def _options() -> ConversionOptions:
    from html_to_markdown import ConversionOptions

    return ConversionOptions(bullets="-", autolinks=False, extract_metadata=False, preserve_tags=["sup", "sub"])
