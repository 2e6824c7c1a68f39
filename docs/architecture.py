"""Picture of the packages, `docs/architecture.svg`: the layers of the import contract and the data's way through them.

    python docs/architecture.py

Layers are read from the import contract in pyproject.toml, descriptions from the packages' docstrings, so the picture
follows the code; a test compares the two. What is drawn by hand is the order of `WAY`.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
WAY = (
    ("selfplay.data", "human conversations are read, cleaned, mixed"),
    ("selfplay.train", "UserGPT learns the human turns, the assistant its own"),
    ("simulator", "UserGPT speaks as the user"),
    ("selfplay.generate", "both sides talk, by free KV tokens"),
    ("selfplay.store", "every turn is committed"),
    ("selfplay.curate", "what is fit to be learned from"),
    ("selfplay.train", "the next assistant"),
    ("bench", "scores, beside people"),
)
"""The steps of one iteration, in order, and the package of each."""
WIDTH, ROW, GAP, MARGIN = 980, 66, 10, 16


def layers() -> list[list[str]]:
    """The rungs of the import contract, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rungs = contracts["contracts"][0]["layers"]
    return [[name.strip() for name in rung.replace(":", "|").split("|")] for rung in rungs]


def description(package: str) -> str:
    """The first sentence of a package's or module's docstring."""
    path = ROOT / package.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")


def picture() -> str:
    """The SVG: a row a rung, a box a package, a number for each step of the data's way."""
    rows = layers()
    steps: dict[str, list[int]] = {}
    for number, (package, _) in enumerate(WAY, start=1):
        steps.setdefault(package, []).append(number)
    height = MARGIN * 2 + len(rows) * (ROW + GAP) + 30 + len(WAY) * 19
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for level, packages in enumerate(rows):
        width = (WIDTH - 2 * MARGIN - GAP * (len(packages) - 1)) / len(packages)
        for column, package in enumerate(packages):
            x, y = MARGIN + column * (width + GAP), MARGIN + level * (ROW + GAP)
            parts += _box(package, steps.get(package, []), x, y, width)
    top = MARGIN * 2 + len(rows) * (ROW + GAP) + 14
    parts.append(_text(MARGIN, top, "The data's way; imports point down only", 14, bold=True))
    for number, (package, what) in enumerate(WAY, start=1):
        parts.append(_text(MARGIN, top + 4 + number * 19, f"{number}  {package}: {what}", 13))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(package: str, steps: list[int], x: float, y: float, width: float) -> list[str]:
    fill = "#e3f0e8" if steps else "#f3f3f1"
    parts = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{ROW}" rx="5" fill="{fill}" stroke="#8a8a84"/>',
        _text(x + 9, y + 20, package, 14, bold=True),
    ]
    lines = textwrap.wrap(description(package), max(14, int(width / 6.6)))
    shown = lines[:3] if len(lines) <= 3 else [*lines[:2], textwrap.shorten(" ".join(lines[2:]), int(width / 6.9))]
    parts += [_text(x + 9, y + 34 + 13 * n, line, 11) for n, line in enumerate(shown)]
    for n, step in enumerate(reversed(steps)):
        centre = x + width - 16 - 24 * n
        parts.append(f'<circle cx="{centre:.0f}" cy="{y + 15:.0f}" r="10" fill="#1b6e4b"/>')
        parts.append(_text(centre - (4 if step < 10 else 7), y + 19, str(step), 12, bold=True, colour="white"))
    return parts


def _text(x: float, y: float, text: str, size: int, bold: bool = False, colour: str = "#222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(picture(), encoding="utf-8")
