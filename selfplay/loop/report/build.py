"""`selfplay loop report`: a loop's ledger and outputs as a page with plots, HTML and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.intervals import Measurement
from selfplay.chat.conversation import Conversation
from selfplay.errors import StoreError
from selfplay.loop.evaluate import EXAMPLES
from selfplay.loop.metrics import ASSISTANT, CORPUS, DATA, USERS, IterationMetrics, MetricSpec, MetricValue, number
from selfplay.loop.report.charts import Panel, draw_funnel, draw_panels
from selfplay.loop.report.page import HTML, MARKDOWN, Example, Page, Section, write_page
from selfplay.loop.stages.stage import BENCH, KEPT
from selfplay.loop.status import LoopState, loop_status
from selfplay.store.store import is_run, open_run

REPORT = "report"
_READ = "read"
"""The first step of a funnel: what curation was given."""
_GOOD = {"low": " (low)", "high": " (high)", "people": " (as people)", "0.5": " (0.5)", "": ""}
_TEXTS = {
    "assistant": "How well each assistant predicts what people's assistants said in held-out conversations, and what a "
    "judge says of its answers. 95 % intervals over conversations or questions; the gain is paired.",
    "users": "The simulated users of each iteration's conversations beside held-out people's.",
    "corpus": "The conversations of each iteration beside held-out people's.",
    "funnel": "What curation left of each iteration's conversations, step by step, and what was learned from.",
    "health": "Figures and ratios that may not drift past a limit; those of the first iteration from the next one on.",
    "stages": "When and where each stage ran, and with which code.",
}


def loop_report(folder: str | Path) -> list[Path]:
    """Write `report/report.html`, `report.md` and the pictures of a loop.

    Returns:
        The two pages.

    Raises:
        SelfplayError: there is no loop, or its files cannot be read.
    """
    looped = loop_status(folder)
    out = looped.folder / REPORT
    out.mkdir(exist_ok=True)
    write_page(out, _page(looped, out))
    return [out / HTML, out / MARKDOWN]


def _page(looped: LoopState, out: Path) -> Page:
    found = looped.found
    judged = _judged(looped)
    sections = [
        _figures(out, "The assistant", "assistant", found, (*ASSISTANT, *judged)),
        _figures(out, "Simulated users", "users", found, USERS),
        _figures(out, "The conversations", "corpus", found, CORPUS),
        _funnel(out, looped, found),
        _health(looped),
        _stages(looped),
    ]
    return Page(
        f"Loop {looped.folder.name}",
        _lead(looped),
        _tiles(found, judged),
        _remarks(looped),
        [section for section in sections if section is not None],
        _examples(looped),
    )


def _judged(looped: LoopState) -> tuple[MetricSpec, ...]:
    """The question sets that were judged; a mean score, or an adjusted win rate."""
    stage = looped.config.bench
    return (
        tuple(MetricSpec(Path(name).stem, f"{Path(name).stem}, by {stage.judge}", "high") for name in stage.sets)
        if stage.judge
        else ()
    )


def _lead(looped: LoopState) -> str:
    done = {entry.iteration for entry in looped.entries if entry.stage == "bench" and entry.state == "done"} - {0}
    seconds = sum(entry.seconds or 0 for entry in looped.entries)
    state = "running" if looped.running else "stopped early" if looped.stopped else "not running"
    state = "finished" if len(done) >= looped.config.iterations and not looped.running else state
    told = f"{looped.config.description} · " if looped.config.description else ""
    took = timedelta(seconds=round(seconds))
    return f"{told}{len(done)} of {looped.config.iterations} iterations, {state} · {took} in all"


def _tiles(found: Mapping[int, IterationMetrics], judged: Sequence[MetricSpec]) -> list[tuple[str, str, str]]:
    """What the loop came to: the last value of each main figure, and what it began with."""
    tiles = []
    labels = {"bits_per_byte": "held-out people, bits per byte", **{one.name: one.title for one in judged},
              "naturalness_auc": "users told from people, AUC", "distinct_2": "distinct-2 of users",
              "human_share": "people's share of what was learned"}  # fmt: skip
    for name, label in labels.items():
        having = [iteration for iteration in sorted(found) if name in found[iteration]]
        if not having:
            continue
        first, last = found[having[0]][name], found[having[-1]][name]
        beside = [f"people {number(last.people)}"] if last.people is not None else []
        beside += [f"{_iteration(having[0])} {number(first.value)}"] if len(having) > 1 else []
        gain = found[having[-1]].get("gain")
        beside += [f"gain {gain}"] if name == "bits_per_byte" and gain is not None else []
        tiles.append((label, number(last.value), " · ".join(beside)))
    return tiles


def _remarks(looped: LoopState) -> list[tuple[str, str]]:
    remarks = [("alarm", looped.stopped)] if looped.stopped is not None and looped.alarmed else []
    remarks += [("note", f"stopped: {looped.stopped}")] if looped.stopped is not None and not looped.alarmed else []
    for entry in looped.entries:
        if entry.error is not None:
            remarks.append(("warning", f"iteration {entry.iteration}, {entry.stage} {entry.state}: {entry.error}"))
    past = [one for one in looped.checked if one.alarm and not (looped.alarmed and str(one) in str(looped.stopped))]
    remarks += [
        ("alarm" if one.limit.action == "stop" else "warning", f"iteration {one.iteration}: {one}") for one in past
    ]
    return remarks


def _figures(
    out: Path, title: str, name: str, found: Mapping[int, IterationMetrics], figures: Sequence[MetricSpec]
) -> Section | None:
    """Charts and a table of some figures, people in the first column; None where there is none."""
    shown = [figure for figure in figures if any(figure.name in one for one in found.values())]
    if not shown:
        return None
    draw_panels(out / f"{name}.svg", [_panel(found, figure) for figure in shown])
    iterations = [iteration for iteration in sorted(found) if any(one.name in found[iteration] for one in shown)]
    people = any(found[i][one.name].people is not None for i in iterations for one in shown if one.name in found[i])
    header = ("figure (good)", *(["people"] if people else []), *map(_iteration, iterations))
    rows = []
    for figure in shown:
        values = [found[iteration].get(figure.name) for iteration in iterations]
        known = [value.people for value in values if value is not None and value.people is not None]
        beside = [number(known[-1]) if known else ""] if people else []
        rows.append((figure.title + _GOOD[figure.good], *beside, *(str(value or "") for value in values)))
    return Section(title, _TEXTS[name], {f"{name}.svg": f"{title}: figures by iteration"}, [("", header, rows)])


def _panel(found: Mapping[int, IterationMetrics], figure: MetricSpec) -> Panel:
    values = {iteration: one[figure.name] for iteration, one in sorted(found.items()) if figure.name in one}
    people = [value.people for value in values.values() if value.people is not None]
    points = {iteration: _estimate(value) for iteration, value in values.items()}
    return Panel(
        figure.title.split(",")[0] if len(figure.title) > 44 else figure.title, points, people[-1] if people else None
    )


def _estimate(value: MetricValue) -> Measurement:
    low, high = value.low, value.high
    return Measurement(value.value, value.value if low is None else low, value.value if high is None else high, 0)


def _funnel(out: Path, looped: LoopState, found: Mapping[int, IterationMetrics]) -> Section | None:
    """What was left after each step of curation, and the data that was learned from."""
    left: dict[int, dict[str, int]] = {}
    for entry in looped.entries:
        report = looped.folder / f"{entry.iteration:03d}" / f"{KEPT}.report.json"
        if entry.stage == "curate" and entry.state == "done" and report.exists():
            told = _json(report)
            after = {name: int(step["rows_after"]) for name, step in told["steps"].items()}
            left[entry.iteration] = {_READ: int(told["conversations"]), **after}
    if not left:
        return None
    steps = list(dict.fromkeys(step for one in left.values() for step in one))
    draw_funnel(out / "funnel.svg", steps, {i: _carried(one, steps) for i, one in left.items()})
    header = ("step", *(f"iteration {iteration}" for iteration in left))
    rows = [(step, *(f"{one[step]:,}" if step in one else "" for one in left.values())) for step in steps]
    data = [(figure.title, *(str(found[i].get(figure.name) or "") for i in left)) for figure in DATA]
    tables = [("", header, rows), ("what was learned from", header, [row for row in data if any(row[1:])])]
    return Section(
        "Curation", _TEXTS["funnel"], {"funnel.svg": "conversations left after each step of curation"}, tables
    )


def _carried(left: Mapping[str, int], steps: Sequence[str]) -> list[int]:
    """A number a step; a step that an iteration did not have leaves what was there."""
    found, now = [], 0
    for step in steps:
        now = left.get(step, now)
        found.append(now)
    return found


def _health(looped: LoopState) -> Section | None:
    """A row a limit, a column an iteration; what is past its limit says so."""
    checked = looped.checked
    if not checked:
        return None
    iterations = sorted({one.iteration for one in checked})
    limits = [limit for limit in looped.config.health if any(one.limit == limit for one in checked)]
    cells = {(one.limit, one.iteration): f"{'past: ' if one.alarm else ''}{one.measured:.3f}" for one in checked}
    rows = []
    for limit in limits:
        of = {None: "", "human": ", of people's", "first_iteration": ", of the first"}[limit.relative_to]
        bounds = ["" if bound is None else f"{bound:g}" for bound in (limit.min, limit.max)]
        rows.append((f"{limit.metric}{of}", *bounds, limit.action, *(cells.get((limit, i), "") for i in iterations)))
    header = ("metric", "min", "max", "action", *map(_iteration, iterations))
    return Section("Health", _TEXTS["health"], {}, [("", header, rows)])


def _stages(looped: LoopState) -> Section:
    rows = [
        (
            f"{_iteration(entry.iteration)}, {entry.stage}",
            entry.state,
            "" if entry.seconds is None else str(timedelta(seconds=round(entry.seconds))),
            entry.host,
            entry.code,
        )
        for entry in looped.entries
    ]
    return Section("Stages", _TEXTS["stages"], {}, [("", ("stage", "state", "time", "host", "code"), rows)])


def _examples(looped: LoopState) -> list[Example]:
    """What every iteration made of the same openings."""
    by_opening: dict[str, list[tuple[str, Conversation]]] = {}
    for entry in looped.entries:
        folder = looped.folder / f"{entry.iteration:03d}" / BENCH / EXAMPLES
        if entry.stage != "bench" or entry.state != "done" or not is_run(folder):
            continue
        with open_run(folder) as run:
            for conversation in run.conversations():
                if opened := conversation.of("user"):
                    by_opening.setdefault(opened[0], []).append((_iteration(entry.iteration), conversation))
    return [Example(opening, columns) for opening, columns in by_opening.items()]


def _iteration(number: int) -> str:
    return f"iteration {number}" if number else "before"


def _json(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run the loop's command again to make it") from error
    return told
