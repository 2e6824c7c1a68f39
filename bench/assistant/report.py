"""Reports of judged benchmarks: scores per model, turn and category with intervals, and figures of the judge.

A report is computed from files alone; no model, judge or question file is needed. It also says how many judgments have
no verdict.

Read from a set's folder: `model_answer/`, `model_judgment/`, `set.json` (title, categories of questions, baseline; no
question), `usage.jsonl` (tokens, cost and seconds of judging). Written: `report/JUDGE_MODE.json`, `.md`, and charts as
PNG and SVG.
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
    """The content of `set.json`: title, categories and baseline of the question set."""

    title: str
    categories: dict[str, str] = field(default_factory=dict)
    """The category by question id, the id as text."""
    baseline: str | None = None


@dataclass(slots=True)
class Report:
    """The report of one judge in one mode: the figures of a judgment file."""

    title: str
    judge: str
    mode: str
    graded: list[Graded] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    matrix: dict[tuple[str, str], Measurement] = field(default_factory=dict)
    judge_figures: dict[str, Measurement] = field(default_factory=dict)
    judgments: int = 0
    questions: int = 0
    """Number of questions with a judgment, with or without a verdict."""
    of: int | None = None
    """Number of questions of the set, if it is known."""
    unjudged: dict[str, int] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    """Tokens, cost and seconds of judging, summed over all runs."""

    file: str = ""
    """The path of the report in Markdown, once it is written."""

    @property
    def name(self) -> str:
        """The beginning of the names of its files."""
        return f"{self.judge}_{self.mode}"

    def is_of(self, judge: str, mode: str) -> bool:
        """Whether the report is of this judge in this mode."""
        return self.judge == judge and self.mode.startswith(mode)


def write_reports(folder: Path) -> list[Report]:
    """Write every report that the files in a set's folder allow.

    Raises:
        DataError: the folder holds no judgments.
    """
    reports = [report for report in reports_of(folder) if report.graded or report.compared]
    if not reports:
        raise DataError(f"{folder}: holds no judgments (model_judgment/*_single.jsonl or *_pair.jsonl)")
    for report in reports:
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
    return reports


def reports_of(folder: Path) -> list[Report]:
    """Compute one report for each judgment file; with a baseline, one of all games and one of those against it.

    Raises:
        DataError: a file cannot be read.
    """
    about = read_about(folder)
    answers = {path.stem: read_answers(path) for path in sorted((folder / "model_answer").glob("*.jsonl"))}
    reports = []
    for path in sorted((folder / "model_judgment").glob("*.jsonl")):
        judge, _, kind = path.stem.rpartition("_")
        rows = _judgments(path) if kind in ("single", "pair") else []
        if kind == "single":
            report = _report(about, judge, "single", rows, answers, folder)
            report.graded = grade(rows, about.categories)
            reports.append(report)
        elif kind == "pair":
            names = {str(row[side]) for row in rows for side in ("model_1", "model_2")}
            for baseline in (None, *([about.baseline] if about.baseline in names else [])):
                against = f"pairwise-baseline_{baseline}" if baseline else "pairwise-all"
                games = [row for row in rows if not baseline or baseline in (row["model_1"], row["model_2"])]
                report = _report(about, judge, against, games, answers, folder)
                report.compared = compare(games, about.categories, baseline)
                report.matrix = {} if baseline else win_matrix(games)
                reports.append(report)
    return reports


def read_about(folder: Path) -> About:
    """Read `set.json`. A folder written by FastChat has none, so its report has no categories.

    Raises:
        DataError: the file cannot be parsed.
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
    """Append the tokens, cost and seconds of a run of the judge to `usage.jsonl`."""
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
    usage_rows = read_rows(folder / USAGE) if (folder / USAGE).exists() else []
    used = [row for row in usage_rows if (row["judge"], row["kind"]) == (judge, kind)]
    report.usage = {key: sum(row[key] for row in used) for key in _USED} if used else {}
    return report


_USED = ("prompt_tokens", "sampled_tokens", "cost", "seconds")


_SINGLE: dict[str, Any] = {"question_id": int | str, "judge": list, "model": str, "score": int | float}
_PAIR: dict[str, Any] = {
    "question_id": int | str, "judge": list, "model_1": str, "model_2": str, "g1_winner": str, "g2_winner": str
}  # fmt: skip
_WINNERS = {"model_1", "model_2", "tie", "error"}


def _judgments(path: Path) -> list[Row]:
    """Read the rows of a judgment file; a failed judgment that was made again later is left out.

    Raises:
        DataError: a row is not a judgment; the message gives its line.
    """
    wanted = _SINGLE if path.stem.endswith("_single") else _PAIR
    rows = []
    for place, row in placed_rows(path):
        wrong = [key for key, kind in wanted.items() if not isinstance(row.get(key), kind)]
        wrong += [key for key in ("g1_winner", "g2_winner") if key in row and row[key] not in _WINNERS]
        wrong += [] if isinstance(row.get("turn", 1), int) else ["turn"]
        if wrong:
            wrong_values = ", ".join(f"{key} {row.get(key)!r}" for key in wrong)
            raise DataError(f"{place}: no judgment of FastChat's layout: {wrong_values}")
        rows.append(row)
    newest = {key_of(row): number for number, row in enumerate(rows)}
    # Only rows with our key `cause` are dropped: rows of FastChat's own all count, even with one key twice.
    return [row for number, row in enumerate(rows) if "cause" not in row or newest[key_of(row)] == number]


def notes(report: Report) -> list[str]:
    """Lines on the number of judgments, on those without a verdict and their causes, and on the cost of judging."""
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
    """Tables of standings, categories and figures of the judge; `brief` omits the intervals where tables are wide."""
    result: list[Table] = []
    if report.graded:
        title = f"{report.title}: scores of 1 to 10 by {report.judge}"
        result.append((title, *_standings(report.graded, brief)))
        result += _categories("score", {g.model: g.categories for g in report.graded}, brief)
    if report.compared:
        title = f"{report.title}: {report.mode.replace('_', ' ')} by {report.judge}"
        result.append((title, *_games(report.compared, brief)))
        result += _categories("adjusted win rate", {c.model: c.categories for c in report.compared}, brief)
    if report.judge_figures:
        lines = [(name, cell(figure), str(figure.n)) for name, figure in report.judge_figures.items()]
        result.append((f"the judge {report.judge}", ("figure", "value", "questions"), lines))
    return result


def _standings(graded: Sequence[Graded], brief: bool) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    turns = sorted({turn for row in graded for turn in row.turns})
    header = ("model", "score", *(f"turn {turn}" for turn in turns), "questions", "unjudged")
    rows = []
    for row in graded:
        means = [cell(row.turns.get(turn), brief, digits=2) for turn in turns]
        rows.append((row.model, cell(row.overall, digits=2), *means, _n(row.overall), _count(row.unjudged)))
    return header, rows


def _games(compared: Sequence[Compared], brief: bool) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    turns = [] if brief else sorted({turn for row in compared for turn in row.turns})
    rates = () if brief else ("win rate", "loss rate")
    header = ("model", "win", "loss", "tie", *rates, "adjusted win rate",
              *(f"turn {turn}" for turn in turns), "questions", "unjudged")  # fmt: skip
    rows = []
    for row in compared:
        shown = () if brief else (cell(row.win_rate), cell(row.loss_rate))
        figures = (cell(row.adjusted), *(cell(row.turns.get(turn)) for turn in turns), _n(row.adjusted))
        rows.append((row.model, str(row.wins), str(row.losses), str(row.ties), *shown, *figures, _count(row.unjudged)))
    return header, rows


def _n(estimate: Measurement | None) -> str:
    return f"{estimate.n:,}" if estimate else "0"


def as_json(report: Report) -> dict[str, Any]:
    """The report as a JSON object; JSON has no tuple keys, so a pair of models is joined by ` over `."""
    value = asdict(report)
    value["matrix"] = {f"{first} over {second}": asdict(rate) for (first, second), rate in report.matrix.items()}
    return value


def _categories(what: str, by_model: dict[str, dict[str, Measurement]], brief: bool) -> list[Table]:
    names = list(dict.fromkeys(name for categories in by_model.values() for name in categories))
    if not names:
        return []
    rows = [(name, *(cell(categories.get(name), brief) for categories in by_model.values())) for name in names]
    return [(f"{what} by category", ("category", *by_model), rows)]


def _count(causes: Mapping[str, int]) -> str:
    return f"{sum(causes.values()):,}"


def _causes(causes: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{cause} {count:,}' for cause, count in causes.items())})" if causes else ""
