"""Reports from files alone: per model, turn and category with intervals, what has no verdict, what the judge is like.

In a set's folder: `model_answer/`, `model_judgment/`, `set.json` (title, categories of questions, baseline; no
question), `usage.jsonl` (what judging took). Written: `report/JUDGE_MODE.json`, `.md`, and charts as PNG and SVG.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.assistant.answers import Answers, read_answers
from bench.assistant.biases import judge_figures
from bench.assistant.charts import write_charts
from bench.assistant.jsonl import Row, placed_rows, read_rows
from bench.assistant.matches import key_of
from bench.assistant.standings import Compared, Graded, compare, failure_counts, grade, win_matrix
from bench.intervals import Measurement
from bench.tables import Table, cell, markdown, write_text
from selfplay.chat.speakers import Usage
from selfplay.errors import DataError

SET, USAGE = "set.json", "usage.jsonl"


@dataclass(frozen=True, slots=True)
class About:
    """What a set's folder knows of its questions."""

    title: str
    categories: dict[str, str] = field(default_factory=dict)
    """By question id as text."""
    baseline: str | None = None


@dataclass(slots=True)
class Report:
    """One judgment file in figures."""

    title: str
    judge: str
    mode: str
    graded: list[Graded] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    matrix: dict[tuple[str, str], Measurement] = field(default_factory=dict)
    judge_figures: dict[str, Measurement] = field(default_factory=dict)
    judgments: int = 0
    questions: int = 0
    """With a judgment of any kind."""
    of: int | None = None
    """Questions of the set, where it is known."""
    unjudged: dict[str, int] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    """Tokens, cost and seconds of judging, all runs together."""

    file: str = ""
    """Where it is written."""

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.judge}_{self.mode}"

    def is_of(self, judge: str, mode: str) -> bool:
        """Whether it is a judge's in a mode."""
        return self.judge == judge and self.mode.startswith(mode)


def write_reports(folder: Path) -> list[Report]:
    """Write every report that the files in a set's folder allow.

    Raises:
        DataError: there are no judgments.
    """
    found = [report for report in reports_of(folder) if report.graded or report.compared]
    if not found:
        raise DataError(f"{folder}: holds no judgments (model_judgment/*_single.jsonl or *_pair.jsonl)")
    for report in found:
        out = folder / "report"
        out.mkdir(exist_ok=True)
        charts = write_charts(
            out, report.name, f"{report.title}, judged by {report.judge}", report.graded, report.compared, report.matrix
        )
        write_text(out / f"{report.name}.json", json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n")
        parts = [f"# {report.title}, judged by {report.judge}", *(f"- {line}" for line in notes(report))]
        for title, header, rows in tables(report):
            parts += [f"\n## {title}\n", markdown(header, rows)]
        parts += ["", *(f"![{chart}]({quote(chart)}.png)\n" for chart in charts)]
        report.file = str(out / f"{report.name}.md")
        write_text(Path(report.file), "\n".join(parts) + "\n")
    return found


def reports_of(folder: Path) -> list[Report]:
    """A report a judgment file; a set compared with a baseline gets one of those games alone and one of all.

    Raises:
        DataError: a file that cannot be read.
    """
    about = read_about(folder)
    answers = {path.stem: read_answers(path) for path in sorted((folder / "model_answer").glob("*.jsonl"))}
    found = []
    for path in sorted((folder / "model_judgment").glob("*.jsonl")):
        judge, _, kind = path.stem.rpartition("_")
        rows = _judgments(path) if kind in ("single", "pair") else []
        if kind == "single":
            report = _report(about, judge, "single", rows, answers, folder)
            report.graded = grade(rows, about.categories)
            found.append(report)
        elif kind == "pair":
            names = {str(row[side]) for row in rows for side in ("model_1", "model_2")}
            for baseline in (None, *([about.baseline] if about.baseline in names else [])):
                against = f"pairwise-baseline_{baseline}" if baseline else "pairwise-all"
                games = [row for row in rows if not baseline or baseline in (row["model_1"], row["model_2"])]
                report = _report(about, judge, against, games, answers, folder)
                report.compared = compare(games, about.categories, baseline)
                report.matrix = {} if baseline else win_matrix(games)
                found.append(report)
    return found


def read_about(folder: Path) -> About:
    """What `set.json` says; a folder of FastChat's has none, and so no categories.

    Raises:
        DataError: it is broken.
    """
    path = folder / SET
    if not path.exists():
        return About(folder.name)
    try:
        return About(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); the benchmark's command writes it again") from error


def write_about(folder: Path, about: About) -> None:
    """Write `set.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SET, json.dumps(asdict(about), indent=1, ensure_ascii=False) + "\n")


def note_usage(folder: Path, judge: str, kind: str, usage: Usage, cost: float, seconds: float) -> None:
    """Add what a run of a judge took."""
    row = {"judge": judge, "kind": kind, "prompt_tokens": usage.prompt_tokens, "sampled_tokens": usage.sampled_tokens,
           "cost": cost, "seconds": round(seconds, 3)}  # fmt: skip
    with (folder / USAGE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _report(
    about: About, judge: str, mode: str, rows: Sequence[Row], answers: Mapping[str, Answers], folder: Path
) -> Report:
    report = Report(about.title, judge, mode, judge_figures=judge_figures(rows, answers), judgments=len(rows))
    report.unjudged = failure_counts(rows)
    report.questions = len({row["question_id"] for row in rows})
    report.of = len(about.categories) or None
    kind = "single" if mode == "single" else "pair"
    known = read_rows(folder / USAGE) if (folder / USAGE).exists() else []
    used = [row for row in known if (row["judge"], row["kind"]) == (judge, kind)]
    report.usage = {key: sum(row[key] for row in used) for key in _USED} if used else {}
    return report


_USED = ("prompt_tokens", "sampled_tokens", "cost", "seconds")


_SINGLE: dict[str, Any] = {"question_id": int | str, "judge": list, "model": str, "score": int | float}
_PAIR: dict[str, Any] = {
    "question_id": int | str, "judge": list, "model_1": str, "model_2": str, "g1_winner": str, "g2_winner": str
}  # fmt: skip
_WINNERS = {"model_1", "model_2", "tie", "error"}


def _judgments(path: Path) -> list[Row]:
    """The rows of a judgment file; of ours, what was judged again later is left out.

    Raises:
        DataError: a row that is no judgment, with its line.
    """
    wanted = _SINGLE if path.stem.endswith("_single") else _PAIR
    rows = []
    for place, row in placed_rows(path):
        wrong = [key for key, kind in wanted.items() if not isinstance(row.get(key), kind)]
        wrong += [key for key in ("g1_winner", "g2_winner") if key in row and row[key] not in _WINNERS]
        wrong += [] if isinstance(row.get("turn", 1), int) else ["turn"]
        if wrong:
            found = ", ".join(f"{key} {row.get(key)!r}" for key in wrong)
            raise DataError(f"{place}: no judgment of FastChat's layout: {found}")
        rows.append(row)
    newest = {key_of(row): number for number, row in enumerate(rows)}
    return [row for number, row in enumerate(rows) if "cause" not in row or newest[key_of(row)] == number]


def notes(report: Report) -> list[str]:
    """How many judgments there are, which have no verdict and why, and what they took."""
    without = f"{_count(report.unjudged)}{_causes(report.unjudged)}"
    lines = [f"judgments: {report.judgments:,}, without a verdict: {without}"]
    if report.of is not None and report.questions < report.of:
        lines.append(f"NOT WHOLE: {report.of - report.questions:,} of {report.of:,} questions have no judgment")
    if report.usage:
        used = report.usage
        cost = f", cost {used['cost']:,.2f}" if used["cost"] else ""
        lines.append(
            f"the judge took {used['prompt_tokens']:,} prompt tokens, {used['sampled_tokens']:,} sampled tokens{cost}, "
            f"{used['seconds']:,.0f} s"
        )
    return lines


def tables(report: Report, brief: bool = False) -> list[Table]:
    """Standings, categories and the judge's figures; `brief` leaves intervals out where tables are wide."""
    found: list[Table] = []
    if report.graded:
        title = f"{report.title}: scores of 1 to 10 by {report.judge}"
        found.append((title, *_standings(report.graded, brief)))
        found += _categories("score", {g.model: g.categories for g in report.graded}, brief)
    if report.compared:
        title = f"{report.title}: {report.mode.replace('_', ' ')} by {report.judge}"
        found.append((title, *_games(report.compared, brief)))
        found += _categories("adjusted win rate", {c.model: c.categories for c in report.compared}, brief)
    if report.judge_figures:
        lines = [(name, cell(figure), str(figure.n)) for name, figure in report.judge_figures.items()]
        found.append((f"the judge {report.judge}", ("figure", "value", "questions"), lines))
    return found


def _standings(graded: Sequence[Graded], brief: bool) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    turns = sorted({turn for one in graded for turn in one.turns})
    header = ("model", "score", *(f"turn {turn}" for turn in turns), "questions", "unjudged")
    rows = []
    for one in graded:
        means = [cell(one.turns.get(turn), brief, digits=2) for turn in turns]
        rows.append((one.model, cell(one.overall, digits=2), *means, _n(one.overall), _count(one.unjudged)))
    return header, rows


def _games(compared: Sequence[Compared], brief: bool) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    turns = [] if brief else sorted({turn for one in compared for turn in one.turns})
    rates = () if brief else ("win rate", "loss rate")
    header = ("model", "win", "loss", "tie", *rates, "adjusted win rate",
              *(f"turn {turn}" for turn in turns), "questions", "unjudged")  # fmt: skip
    rows = []
    for one in compared:
        shown = () if brief else (cell(one.win_rate), cell(one.loss_rate))
        figures = (cell(one.adjusted), *(cell(one.turns.get(turn)) for turn in turns), _n(one.adjusted))
        rows.append((one.model, str(one.wins), str(one.losses), str(one.ties), *shown, *figures, _count(one.unjudged)))
    return header, rows


def _n(estimate: Measurement | None) -> str:
    return f"{estimate.n:,}" if estimate else "0"


def as_json(report: Report) -> dict[str, Any]:
    """The report with plain keys; pairs of models are joined by ` over `."""
    value = asdict(report)
    value["matrix"] = {f"{one} over {other}": asdict(rate) for (one, other), rate in report.matrix.items()}
    return value


def _categories(what: str, found: dict[str, dict[str, Measurement]], brief: bool) -> list[Table]:
    names = list(dict.fromkeys(name for categories in found.values() for name in categories))
    if not names:
        return []
    rows = [(name, *(cell(categories.get(name), brief) for categories in found.values())) for name in names]
    return [(f"{what} by category", ("category", *found), rows)]


def _count(causes: Mapping[str, int]) -> str:
    return f"{sum(causes.values()):,}"


def _causes(causes: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{cause} {count:,}' for cause, count in causes.items())})" if causes else ""
