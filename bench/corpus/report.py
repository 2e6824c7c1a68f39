"""Report of corpus statistics: the table, and the files `corpus.json` and `corpus.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.corpus.describe import Described
from bench.tables import Table, cell, markdown, write_text


def write_corpora(out: Path, corpora: Sequence[Described], notes: Sequence[str]) -> None:
    """Write `corpus.json` ({"corpora": {corpus: {figure: {value, low, high, n}}}, "notes": [...]}) and `corpus.md`."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        corpus.name: {name: asdict(figure) for name, figure in corpus.figures.items()}
        | {"dialogues": corpus.dialogues, "refused rows": corpus.refused}
        for corpus in corpora
    }
    document = {"corpora": figures, "notes": list(notes)}
    write_text(out / "corpus.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    title, header, rows = corpora_table(corpora)
    lines = [f"# {title}", *(f"- {note}" for note in notes), "", markdown(header, rows)]
    write_text(out / "corpus.md", "\n".join(lines) + "\n")


def corpora_table(corpora: Sequence[Described], brief: bool = False) -> Table:
    """The table with one column for each corpus; `brief` omits the intervals."""
    names = dict.fromkeys(name for corpus in corpora for name in corpus.figures)
    ordered = sorted(names, key=lambda name: name.startswith(("repeated", "with_")))
    rows: list[tuple[str, ...]] = [("dialogues", *(f"{corpus.dialogues:,}" for corpus in corpora))]
    rows += [(_title(name), *(_figure(corpus, name, brief) for corpus in corpora)) for name in ordered]
    rows.append(("rows that are no conversation", *(f"{corpus.refused:,}" for corpus in corpora)))
    return "corpora", ("figure", *(corpus.name for corpus in corpora)), rows


def _figure(corpus: Described, name: str, brief: bool) -> str:
    """The text of a cell; a language without a figure is not among the most frequent ones of the corpus."""
    text = cell(corpus.figures.get(name), brief)
    return text or ("few or none" if name.startswith("language") else "")


def _title(name: str) -> str:
    return "MTLD" if name == "mtld" else name.replace("_", " ")
