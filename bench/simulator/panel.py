"""People and simulated users in one picture: lengths, rounds, diversity, told apart or not, ending or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.intervals import Measurement
from bench.metrics.habits import HABITS, ROUNDS, Habit, counted
from bench.simulator.scorecard import PEOPLE, Scorecard
from selfplay.chat.conversation import Conversation
from selfplay.files import replacing

_PEOPLE_COLOUR = "#3d3d3d"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#999999")
"""Told apart with any colour vision (Okabe and Ito)."""
_DRAWN = 4
"""Simulated rows in the histograms, the first ones."""
_DIVERSITY = ("first_turn_diversity", "distinct_1", "distinct_2", "distinct_3", "self_bleu", "topic_diversity")


def write_panel(path: Path, card: Scorecard, sides: dict[str, Sequence[Conversation]]) -> None:
    """Draw the panel as a PNG. Rows without conversations are in the bars only."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2), layout="constrained", dpi=130)
    axes: Any = figure.subplots(2, 3)
    colours = {row: _PEOPLE_COLOUR if row == PEOPLE else _COLOURS[n % len(_COLOURS)] for n, row in enumerate(card.rows)}
    drawn = {row: side for row, side in sides.items() if row == PEOPLE}
    drawn |= dict([item for item in sides.items() if item[0] != PEOPLE][:_DRAWN])
    _histogram(axes[0, 0], HABITS[0], drawn, colours, "words per user turn")
    _histogram(axes[0, 1], ROUNDS, drawn, colours, "rounds per conversation")
    _bars(axes[0, 2], card, "naturalness_auc", colours, "told from people (AUC; 0.5 = cannot)", mark=0.5)
    _diversity(axes[1, 0], card, colours)
    _bars(axes[1, 1], card, "end_f1", colours, "end of the conversation (F1)")
    _bars(axes[1, 2], card, "bits_per_byte", colours, "bits per byte of people's turns (low is good)")
    labels = [row for row in card.rows if card.rows[row]]
    handles = [_swatch(colours[row]) for row in labels]
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
    figure.suptitle(card.title)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _histogram(
    axis: Any, habit: Habit, sides: dict[str, Sequence[Conversation]], colours: dict[str, str], title: str
) -> None:
    """Shares of conversations or turns by value, people filled, others as lines; the longest hundredth at the end."""
    values_by_row = {row: counted(habit, side).value for row, side in sides.items()}
    values_by_row = {row: values for row, values in values_by_row.items() if len(values)}
    if not values_by_row:
        return _nothing(axis, title)
    longest = int(max(np.percentile(values, 99) for values in values_by_row.values())) + 1
    width = max(1, longest // 30)
    edges = np.arange(0, longest + width + 1, width) - 0.5
    for row, values in values_by_row.items():
        shares = np.histogram(np.minimum(values, edges[-1] - 0.5), edges)[0] / len(values)
        if row == PEOPLE:
            axis.stairs(shares, edges, fill=True, color=colours[row], alpha=0.3)
        else:
            axis.stairs(shares, edges, color=colours[row], linewidth=1.6)
    _dress(axis, title)
    axis.set_ylabel("share")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return None


def _bars(
    axis: Any, card: Scorecard, metric: str, colours: dict[str, str], title: str, mark: float | None = None
) -> None:
    """A bar a row with its interval."""
    by_row = {row: estimates[metric] for row, estimates in card.rows.items() if metric in estimates}
    if not by_row:
        return _nothing(axis, title)
    places, start = np.arange(len(by_row)), mark or 0.0
    widths = [e.value - start for e in by_row.values()]
    axis.barh(places, widths, left=start, color=[colours[row] for row in by_row], height=0.62)
    axis.errorbar([e.value for e in by_row.values()], places, xerr=_errors(by_row.values()), fmt="none", ecolor="black",
                  elinewidth=1, capsize=2)  # fmt: skip
    lowest, highest = (pick([getattr(e, end) for e in by_row.values()]) for pick, end in ((min, "low"), (max, "high")))
    room = 0.06 * (highest - min(lowest, 0.0))
    for place, estimate in zip(places, by_row.values(), strict=True):
        axis.text(estimate.high + room / 3, place, f"{estimate.value:.3f}", va="center", fontsize=8)
    axis.set_yticks(places, list(by_row), fontsize=8, parse_math=False)
    axis.invert_yaxis()
    if mark is not None:
        axis.axvline(mark, color="black", linewidth=1)
        axis.set_xlim(min(0.4, lowest - room), max(1.0, highest) + 2 * room)
    else:
        axis.set_xlim(0, highest + 3 * room)
    _dress(axis, title)
    return None


def _diversity(axis: Any, card: Scorecard, colours: dict[str, str]) -> None:
    """Groups of bars: each measure of diversity, each row."""
    measures = [name for name in _DIVERSITY if any(name in estimates for estimates in card.rows.values())]
    rows = [row for row, estimates in card.rows.items() if any(name in estimates for name in measures)]
    if not measures:
        return _nothing(axis, "diversity")
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        by_place = {place: card.rows[row][name] for place, name in enumerate(measures) if name in card.rows[row]}
        places = np.array(list(by_place), dtype=float) - 0.4 + (number + 0.5) * width
        axis.bar(places, [e.value for e in by_place.values()], width * 0.9, color=colours[row])
        axis.errorbar(places, [e.value for e in by_place.values()], yerr=_errors(by_place.values()), fmt="none",
                      ecolor="black", elinewidth=0.8)  # fmt: skip
    names = {"first_turn_diversity": "first turns", "self_bleu": "self-BLEU", "topic_diversity": "topics"}
    axis.set_xticks(range(len(measures)), [names.get(m, m.replace("_", "-")) for m in measures], fontsize=8)
    _dress(axis, "diversity (near people is good)")
    return None


def _errors(estimates: Any) -> Any:
    """Distances of the interval's ends from the value, (2, n)."""
    measurements: Sequence[Measurement] = list(estimates)
    return np.maximum(0, [[e.value - e.low for e in measurements], [e.high - e.value for e in measurements]])


def _swatch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour)


def _nothing(axis: Any, title: str) -> None:
    axis.text(0.5, 0.5, "left out, see scorecard.md", ha="center", va="center", transform=axis.transAxes, color="grey")
    axis.set_xticks([])
    axis.set_yticks([])
    _dress(axis, title)


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
