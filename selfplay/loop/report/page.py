"""A page of sections, as one HTML file that needs nothing beside it, and as Markdown with its pictures in files.

What models said is data: the HTML escapes it and runs no script, the Markdown keeps it in fenced blocks.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.tables import Table, fenced, markdown, write_text
from selfplay.chat.conversation import Conversation

HTML, MARKDOWN = "report.html", "report.md"
_TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: what it shows, pictures (SVG files of the folder, name → what it shows), tables."""

    title: str
    text: str
    pictures: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """Conversations from one opening, by whose they are."""

    opening: str
    columns: Sequence[tuple[str, Conversation]]


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on it."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str, str]]
    """Label, value, what it is beside."""
    remarks: Sequence[tuple[str, str]]
    """Kind (alarm, warning, note) and text."""
    sections: Sequence[Section]
    examples: Sequence[Example]


def write_page(folder: Path, page: Page) -> None:
    """Write `report.html` and `report.md`; the pictures of the sections lie in `folder`."""
    write_text(folder / HTML, as_html(page, folder))
    write_text(folder / MARKDOWN, as_markdown(page))


def as_html(page: Page, folder: Path) -> str:
    """The page with its pictures inside."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pictures = {name: _inside(folder / name) for section in page.sections for name in section.pictures}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(page=page, pictures=pictures) + "\n"


def as_markdown(page: Page) -> str:
    """The page with its pictures beside it."""
    parts = [f"# {_plain(page.title)}", _plain(page.lead)]
    if page.tiles:
        parts.append(markdown(("", "", ""), page.tiles))
    if page.remarks:
        parts.append("\n".join(f"- **{kind}:** {_inline(text)}" for kind, text in page.remarks))
    for section in page.sections:
        parts += [f"## {section.title}", section.text]
        parts += [f"![{what}]({name})" for name, what in section.pictures.items()]
        for title, header, rows in section.tables:
            parts += [f"### {title}"] if title else []
            parts.append(markdown(header, rows))
    if page.examples:
        parts.append("## The same openings, iteration by iteration")
    for example in page.examples:
        for name, conversation in example.columns:
            text = "\n".join(f"{turn.role}: {turn.content}" for turn in conversation.turns)
            parts += [f"**{name}**", fenced(f"{text}\n({conversation.ended})")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """A text of the recipe in one line, its markup left as it is seen."""
    return re.sub(r"([\\`*_<>\[\]#|!])", r"\\\1", " ".join(text.split()))


def _inline(text: str) -> str:
    """A text in one line that is no markup."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _inside(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
