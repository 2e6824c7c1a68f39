"""Charts of standings, as PNG and SVG: a radar of categories, bars with intervals, and a matrix of win rates.

They know nothing of files of judgments; `standings` computes what is drawn.

Models differ by hatching, line and marker as well as by colour, so that a black-and-white print can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.assistant.standings import Compared, Graded
from bench.intervals import Measurement
from selfplay.files import replacing

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#4d4d4d")
"""Colours that can be distinguished with any colour vision (Okabe and Ito)."""
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_HATCHES = ("", "///", "...", "xxx")
_DRAWN = 8
"""The most models in a radar chart; the best ones are drawn."""
_WIDTH = 7.5
_FEWEST = 3
"""The fewest categories that a radar chart is drawn for."""


def write_charts(
    out: Path,
    name: str,
    title: str,
    graded: Sequence[Graded],
    compared: Sequence[Compared],
    matrix: Mapping[tuple[str, str], Measurement],
) -> list[str]:
    """Draw the charts that the figures allow.

    Returns:
        The names of the charts, without their file endings.
    """
    drawings: dict[str, Callable[[Any], None]] = {}
    categories = {row.model: row.categories for row in graded} | {row.model: row.categories for row in compared}
    highest = 10.0 if graded else 1.0
    if len({category for figures in categories.values() for category in figures}) >= _FEWEST:
        drawings["radar"] = partial(_radar, categories=dict(list(categories.items())[:_DRAWN]), highest=highest)
    bars = _bars_of(graded, compared)
    if bars:
        drawings["bars"] = partial(_bars, groups=bars, highest=highest)
    if len({model for pair in matrix for model in pair}) > 2:
        drawings["wins"] = partial(_wins, matrix=matrix)
    counts = [row.overall.n for row in graded if row.overall] + [row.adjusted.n for row in compared if row.adjusted]
    heading = f"{title} ({max(counts, default=0):,} questions)"
    width = max(_WIDTH, 0.55 * max(len(categories), 1))
    return [_save(out, f"{name}_{kind}", heading, draw, width) for kind, draw in drawings.items()]


def _save(out: Path, name: str, title: str, draw: Callable[[Any], None], width: float = _WIDTH) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # The salt of the SVG's ids is random by default: equal figures would give different files.
    with matplotlib.rc_context({"svg.hashsalt": name, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(width, 5.5), layout="constrained", dpi=140)
        draw(figure)
        figure.suptitle(title, parse_math=False)
        for ending in ("png", "svg"):
            with replacing(out / f"{name}.{ending}") as path:
                metadata = {"Date": None} if ending == "svg" else {}
                figure.savefig(path, format=ending, metadata=metadata)
    return name


def _radar(figure: Any, *, categories: Mapping[str, Mapping[str, Measurement]], highest: float) -> None:
    """Draw one line for each model over all categories; a category without a figure leaves a gap."""
    names = list(dict.fromkeys(name for figures in categories.values() for name in figures))
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    axis = figure.add_subplot(projection="polar")
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    for number, (model, figures) in enumerate(categories.items()):
        values = [figures[name].value if name in figures else np.nan for name in names]
        axis.plot(
            [*angles, angles[0]], [*values, values[0]], label=model, linewidth=1.6, markersize=4,
            color=_COLOURS[number], linestyle=_LINES[number % len(_LINES)], marker=_MARKERS[number],
        )  # fmt: skip
    axis.set_xticks(angles, names, parse_math=False)
    axis.tick_params(axis="x", pad=4)
    for label, angle in zip(axis.get_xticklabels(), angles, strict=True):
        label.set_ha("center" if np.isclose(np.sin(angle), 0, atol=1e-3) else "left" if angle < np.pi else "right")
    axis.set_ylim(0, highest)
    axis.grid(color="#cccccc", linewidth=0.6)
    axis.spines["polar"].set_color("#999999")
    _legend(figure, axis)


def _bars_of(graded: Sequence[Graded], compared: Sequence[Compared]) -> dict[str, dict[str, Measurement | None]]:
    """Group the bars by what they show, then by model."""
    if compared:
        return {"adjusted win rate": {row.model: row.adjusted for row in compared}}
    turns = sorted({turn for row in graded for turn in row.turns})
    groups = {"score": {row.model: row.overall for row in graded}} if graded else {}
    if len(turns) > 1:
        groups |= {f"turn {turn}": {row.model: row.turns.get(turn) for row in graded} for turn in turns}
    return groups


def _bars(figure: Any, *, groups: Mapping[str, Mapping[str, Measurement | None]], highest: float) -> None:
    """Draw bars with 95 % intervals, models side by side."""
    axis = figure.add_subplot()
    models = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for number, (what, estimates) in enumerate(groups.items()):
        for nth, (place, estimate) in enumerate(_placed(models, estimates)):
            at = place + (number - (len(groups) - 1) / 2) * width
            below, above = estimate.value - estimate.low, estimate.high - estimate.value
            axis.bar(
                at, estimate.value, width * 0.92, yerr=[[max(0, below)], [max(0, above)]], capsize=3,
                color=_COLOURS[number], alpha=0.75, edgecolor="black", linewidth=0.6, hatch=_HATCHES[number % 4],
                label=what if nth == 0 else None, error_kw={"linewidth": 1},
            )  # fmt: skip
    turned = {"rotation": 35, "ha": "right"} if len(models) > 3 else {}
    axis.set_xticks(range(len(models)), models, parse_math=False, **turned)
    axis.set_xlim(-0.7, len(models) - 0.3)
    axis.set_ylim(0, highest)
    if highest == 1:
        axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        axis.set_ylabel("adjusted win rate, 95 % interval over questions")
    else:
        axis.set_ylabel("score of 1 to 10, 95 % interval over questions")
    axis.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        _legend(figure, axis)


def _placed(models: Sequence[str], estimates: Mapping[str, Measurement | None]) -> Iterator[tuple[int, Measurement]]:
    for place, model in enumerate(models):
        estimate = estimates.get(model)
        if estimate is not None:
            yield place, estimate


def _wins(figure: Any, *, matrix: Mapping[tuple[str, str], Measurement]) -> None:
    """Draw the adjusted win rate of the row's model over the column's: light loses, dark wins."""
    strength = {model: np.mean([rate.value for (first, _), rate in matrix.items() if first == model])
                for pair in matrix for model in pair}  # fmt: skip
    models = sorted(strength, key=lambda model: -strength[model])
    values = np.full((len(models), len(models)), np.nan)
    for (first, second), rate in matrix.items():
        values[models.index(first), models.index(second)] = rate.value
    axis = figure.add_subplot()
    image = axis.imshow(values, cmap="Greys", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{value:.2f}"
        axis.text(column, row, text, ha="center", va="center", color="white" if value > 0.55 else "black")
    axis.set_xticks(range(len(models)), models, rotation=30, ha="right", parse_math=False)
    axis.set_yticks(range(len(models)), models, parse_math=False)
    axis.set_xlabel("against")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, label="adjusted win rate of the row", shrink=0.8)


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # else a dollar sign in a name starts a formula
