"""Figures by iteration as pictures, SVG: points with 95 % intervals beside people's line, and what curation left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from bench.intervals import Measurement
from selfplay.files import replacing

_BLUE, _GREY = "#0072b2", "#555555"
_SHADES = ("#9ecae1", "#4292c6", "#084594", "#041f4a")
_COLUMNS = 3
_FLATTEST = 1e-3
"""Shortest axis of a figure."""
_BARS = 4
"""Iterations that have bars of their own: the first ones and the last."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure over the iterations, and people's."""

    title: str
    points: Mapping[int, Measurement]
    people: float | None = None


def draw_panels(path: Path, panels: Sequence[Panel]) -> None:
    """A small chart a figure, all over the same iterations."""
    rows = ceil(len(panels) / _COLUMNS)
    columns = min(_COLUMNS, len(panels))

    def draw(figure: Any) -> None:
        axes = figure.subplots(rows, columns, squeeze=False)
        iterations = sorted({number for panel in panels for number in panel.points})
        for place, axis in enumerate(axes.flat):
            if place < len(panels):
                _draw_panel(axis, panels[place], iterations)
            else:
                axis.set_axis_off()

    _save(path, (3.7 * columns, 2.5 * rows), draw)


def draw_funnel(path: Path, steps: Sequence[str], left: Mapping[int, Sequence[int]]) -> None:
    """Conversations left after each step of curation.

    Args:
        left: by iteration, a number a step.
    """
    numbers = sorted(left)
    shown = numbers if len(numbers) <= _BARS else [*numbers[: _BARS - 1], numbers[-1]]
    height = 0.8 / len(shown)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for nth, number in enumerate(shown):
            places = [step + (nth - (len(shown) - 1) / 2) * height for step in range(len(steps))]
            colour = _SHADES[-1] if len(shown) == 1 else _SHADES[nth % len(_SHADES)]
            axis.barh(places, left[number], height * 0.9, color=colour, label=f"iteration {number}")
            axis.text(left[number][-1], places[-1], f" {left[number][-1]:,}", va="center", fontsize=8)
        axis.set_yticks(range(len(steps)), steps, parse_math=False)
        axis.invert_yaxis()
        axis.set_xlabel("conversations left after the step")
        axis.spines[["top", "right"]].set_visible(False)
        if len(shown) > 1:
            figure.legend(loc="outside lower center", ncols=len(shown), frameon=False)

    _save(path, (7.5, 1.2 + 0.34 * len(steps)), draw)


def _draw_panel(axis: Any, panel: Panel, iterations: Sequence[int]) -> None:
    numbers = sorted(panel.points)
    found = [panel.points[number] for number in numbers]
    below = [max(0.0, one.value - one.low) for one in found]
    above = [max(0.0, one.high - one.value) for one in found]
    axis.errorbar(
        numbers, [one.value for one in found], yerr=[below, above], color=_BLUE, marker="o", markersize=4.5,
        capsize=3, linewidth=1.6, elinewidth=1,
    )  # fmt: skip
    if panel.people is not None:
        axis.axhline(panel.people, color=_GREY, linestyle="--", linewidth=1.1)
        place = {"xy": (1, panel.people), "xycoords": ("axes fraction", "data")}
        axis.annotate(
            "people", **place, xytext=(-2, 3), textcoords="offset points", ha="right", color=_GREY, fontsize=8
        )
    axis.set_title(panel.title, fontsize=9.5, loc="left", parse_math=False)
    axis.set_xlim(iterations[0] - 0.4, iterations[-1] + 0.4)
    labelled = iterations if len(iterations) <= 12 else iterations[:: ceil(len(iterations) / 12)]
    axis.set_xticks(labelled, [str(number) if number else "before" for number in labelled], fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.margins(y=0.18)
    low, high = axis.get_ylim()
    if high - low < _FLATTEST:  # all the same: no room for rounding errors to look like news
        axis.set_ylim((low + high - _FLATTEST) / 2, (low + high + _FLATTEST) / 2)
    axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _save(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": path.name}):  # the same figures, the same file
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        with replacing(path) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})
