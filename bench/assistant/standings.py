"""Standings of judged models: mean scores and win rates as FastChat's `show_result` computes them, with intervals.

They are computed from the rows of judgment files; the module reads no file itself and knows no question.

Judgments without a verdict (score -1, winner `error`) are left out of the figures, as in FastChat, and counted.
Intervals are over questions, not over judgments: the turns and games of one question are not independent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bench.assistant.jsonl import Row
from bench.intervals import Measurement, ratio

K = TypeVar("K")
ERROR = "error"
TIE = "tie"


@dataclass(slots=True)
class Graded:
    """The scores of one model, from 1 to 10, in single-answer grading."""

    model: str
    overall: Measurement | None
    turns: dict[int, Measurement]
    categories: dict[str, Measurement]
    unjudged: dict[str, int] = field(default_factory=dict)
    """Number of judgments without a score, by cause."""


@dataclass(slots=True)
class Compared:
    """The games of one model: both orders together count as one game, and orders that disagree count as a tie."""

    model: str
    wins: int
    losses: int
    ties: int
    win_rate: Measurement | None
    loss_rate: Measurement | None
    adjusted: Measurement | None
    """The win rate in which a tie is half a win and half a loss."""
    turns: dict[int, Measurement]
    """Adjusted win rate by turn."""
    categories: dict[str, Measurement]
    """Adjusted win rate by category."""
    unjudged: dict[str, int] = field(default_factory=dict)


def failure_cause(row: Row) -> str | None:
    """The cause for which a judgment has no verdict, "not said" in files of FastChat; None if it has a verdict."""
    failed = row["score"] == -1 if "score" in row else ERROR in (row["g1_winner"], row["g2_winner"])
    return str(row.get("cause", "not said")) if failed else None


def failure_counts(rows: Iterable[Row]) -> dict[str, int]:
    """The number of judgments without a verdict by cause, the most frequent cause first."""
    return dict(Counter(cause for row in rows if (cause := failure_cause(row)) is not None).most_common())


def grade(rows: Sequence[Row], categories: Mapping[str, str]) -> list[Graded]:
    """Rank models by their mean score, best first.

    Args:
        rows: the rows of a `_single.jsonl`.
        categories: the category by question id as text; a question that is not in it has no category.
    """
    standings = []
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        own = [row for row in rows if row["model"] == model]
        judged = [row for row in own if failure_cause(row) is None]
        by_turn = _split(judged, lambda row: int(row.get("turn", 1)))
        by_category = _split(judged, lambda row: categories.get(str(row["question_id"]), ""))
        standings.append(
            Graded(
                model,
                _mean(judged),
                {turn: mean for turn, part in sorted(by_turn.items()) if (mean := _mean(part))},
                {name: mean for name, part in by_category.items() if name and (mean := _mean(part))},
                failure_counts(own),
            )
        )
    # A model without any score comes last: 1.0 is above every negated score.
    return sorted(standings, key=lambda graded: -graded.overall.value if graded.overall else 1.0)


def compare(rows: Sequence[Row], categories: Mapping[str, str], baseline: str | None = None) -> list[Compared]:
    """Rank models by their adjusted win rate, best first.

    Args:
        rows: the rows of a `_pair.jsonl`.
        categories: the category by question id as text; a question that is not in it has no category.
        baseline: if given, only the games against this model count, and it has no row of its own.
    """
    games = [row for row in rows if baseline is None or baseline in (row["model_1"], row["model_2"])]
    names = dict.fromkeys(str(row[side]) for row in games for side in ("model_1", "model_2"))
    standings = []
    for model in names:
        if model == baseline:
            continue
        own = [row for row in games if model in (row["model_1"], row["model_2"])]
        judged = [row for row in own if failure_cause(row) is None]
        results = [result(row, model) for row in judged]
        by_turn = _split(judged, lambda row: int(row.get("turn", 1)))
        by_category = _split(judged, lambda row: categories.get(str(row["question_id"]), ""))
        standings.append(
            Compared(
                model,
                results.count(1.0),
                results.count(0.0),
                results.count(0.5),
                _rate(judged, lambda row, model=model: result(row, model) == 1.0),  # type: ignore[misc]
                _rate(judged, lambda row, model=model: result(row, model) == 0.0),  # type: ignore[misc]
                win_rate(judged, model),
                {turn: rate for turn, part in sorted(by_turn.items()) if (rate := win_rate(part, model))},
                {name: rate for name, part in by_category.items() if name and (rate := win_rate(part, model))},
                failure_counts(own),
            )
        )
    return sorted(standings, key=lambda compared: -compared.adjusted.value if compared.adjusted else 1.0)


def win_matrix(rows: Sequence[Row]) -> dict[tuple[str, str], Measurement]:
    """The adjusted win rate of the first model of each pair over the second; each pair is there in both orders."""
    judged = [row for row in rows if failure_cause(row) is None]
    pairs = _split(judged, lambda row: (str(row["model_1"]), str(row["model_2"])))
    games_by_pair: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for (first, second), games in pairs.items():
        games_by_pair[first, second] += games
        games_by_pair[second, first] += games
    return {pair: rate for pair, games in games_by_pair.items() if (rate := win_rate(games, pair[0]))}


def result(row: Row, model: str) -> float:
    """The result of a game for a model: 1 for a win, 0 for a loss, 0.5 for a tie or for orders that disagree."""
    winner = winner_of_game(row)
    if winner == TIE:
        return 0.5
    return 1.0 if row[winner] == model else 0.0


def winner_of_game(row: Row) -> str:
    """The winner of a game that has verdicts: `model_1`, `model_2` or `tie`."""
    first, second = str(row["g1_winner"]), str(row["g2_winner"])
    return first if first == second else TIE


def win_rate(rows: Sequence[Row], model: str) -> Measurement | None:
    """The adjusted win rate of a model over games that have verdicts; None without games."""
    return _rate(rows, lambda row: result(row, model))


def over_questions(rows: Iterable[Row], value: Callable[[Row], float]) -> Measurement | None:
    """The mean of a value over rows, with an interval over questions; None without rows."""
    return pooled(rows, lambda row: [float(value(row))])


def pooled(rows: Iterable[Row], values: Callable[[Row], list[float]]) -> Measurement | None:
    """The mean over all values of all rows, with an interval over questions; None without values."""
    sums: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row_values := values(row):
            sums[str(row["question_id"])] += row_values
    if not sums:
        return None
    totals = np.array([(sum(values), len(values)) for values in sums.values()], dtype=float)
    return ratio(totals[:, 0], totals[:, 1])


def _mean(rows: Sequence[Row]) -> Measurement | None:
    return over_questions(rows, lambda row: float(row["score"]))


def _rate(rows: Sequence[Row], value: Callable[[Row], float]) -> Measurement | None:
    return over_questions(rows, value)


def _split(rows: Sequence[Row], key: Callable[[Row], K]) -> dict[K, list[Row]]:
    parts: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        parts[key(row)].append(row)
    return parts
