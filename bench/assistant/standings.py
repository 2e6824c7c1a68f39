"""Standings of judged models, computed from files alone: FastChat's figures (`show_result`), each with an interval.

Scores of -1 and games with a winner `error` are left out of figures, as in FastChat, and counted.
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
    """A model's single grades, 1 to 10."""

    model: str
    overall: Measurement | None
    turns: dict[int, Measurement]
    categories: dict[str, Measurement]
    unjudged: dict[str, int] = field(default_factory=dict)
    """Judgments without a score, by cause."""


@dataclass(slots=True)
class Compared:
    """A model's games: each counts once, both orders together; orders that disagree are a tie."""

    model: str
    wins: int
    losses: int
    ties: int
    win_rate: Measurement | None
    loss_rate: Measurement | None
    adjusted: Measurement | None
    """Win rate with a tie as half a win and half a loss."""
    turns: dict[int, Measurement]
    """Adjusted win rate by turn."""
    categories: dict[str, Measurement]
    """Adjusted win rate by category."""
    unjudged: dict[str, int] = field(default_factory=dict)


def failure_cause(row: Row) -> str | None:
    """Why a judgment has no verdict; files of others do not say."""
    failed = row["score"] == -1 if "score" in row else ERROR in (row["g1_winner"], row["g2_winner"])
    return str(row.get("cause", "not said")) if failed else None


def failure_counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many judgments have no verdict, by cause, the most frequent first."""
    return dict(Counter(cause for row in rows if (cause := failure_cause(row)) is not None).most_common())


def grade(rows: Sequence[Row], categories: Mapping[str, str]) -> list[Graded]:
    """Models by mean score, best first.

    Args:
        rows: of a `_single.jsonl`.
        categories: category by question id as text; questions that are not in it have none.
    """
    found = []
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        own = [row for row in rows if row["model"] == model]
        told = [row for row in own if failure_cause(row) is None]
        by_turn = _split(told, lambda row: int(row.get("turn", 1)))
        by_category = _split(told, lambda row: categories.get(str(row["question_id"]), ""))
        found.append(
            Graded(
                model,
                _mean(told),
                {turn: mean for turn, part in sorted(by_turn.items()) if (mean := _mean(part))},
                {name: mean for name, part in by_category.items() if name and (mean := _mean(part))},
                failure_counts(own),
            )
        )
    return sorted(found, key=lambda graded: -graded.overall.value if graded.overall else 1.0)


def compare(rows: Sequence[Row], categories: Mapping[str, str], baseline: str | None = None) -> list[Compared]:
    """Models by adjusted win rate, best first.

    Args:
        rows: of a `_pair.jsonl`.
        baseline: only games against this model count, and it has no line of its own.
    """
    games = [row for row in rows if baseline is None or baseline in (row["model_1"], row["model_2"])]
    names = dict.fromkeys(str(row[side]) for row in games for side in ("model_1", "model_2"))
    found = []
    for model in names:
        if model == baseline:
            continue
        own = [row for row in games if model in (row["model_1"], row["model_2"])]
        told = [row for row in own if failure_cause(row) is None]
        results = [result(row, model) for row in told]
        by_turn = _split(told, lambda row: int(row.get("turn", 1)))
        by_category = _split(told, lambda row: categories.get(str(row["question_id"]), ""))
        found.append(
            Compared(
                model,
                results.count(1.0),
                results.count(0.0),
                results.count(0.5),
                _rate(told, lambda row, model=model: result(row, model) == 1.0),  # type: ignore[misc]
                _rate(told, lambda row, model=model: result(row, model) == 0.0),  # type: ignore[misc]
                win_rate(told, model),
                {turn: rate for turn, part in sorted(by_turn.items()) if (rate := win_rate(part, model))},
                {name: rate for name, part in by_category.items() if name and (rate := win_rate(part, model))},
                failure_counts(own),
            )
        )
    return sorted(found, key=lambda compared: -compared.adjusted.value if compared.adjusted else 1.0)


def win_matrix(rows: Sequence[Row]) -> dict[tuple[str, str], Measurement]:
    """Adjusted win rate of the first model of each pair over the second, both ways round."""
    told = [row for row in rows if failure_cause(row) is None]
    pairs = _split(told, lambda row: (str(row["model_1"]), str(row["model_2"])))
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for (one, other), games in pairs.items():
        found[one, other] += games
        found[other, one] += games
    return {pair: rate for pair, games in found.items() if (rate := win_rate(games, pair[0]))}


def result(row: Row, model: str) -> float:
    """1 where a model won a game, 0 where it lost, 0.5 for a tie and for orders that disagree."""
    winner = winner_of_game(row)
    if winner == TIE:
        return 0.5
    return 1.0 if row[winner] == model else 0.0


def winner_of_game(row: Row) -> str:
    """`model_1`, `model_2` or `tie` of a game that has verdicts."""
    first, second = str(row["g1_winner"]), str(row["g2_winner"])
    return first if first == second else TIE


def win_rate(rows: Sequence[Row], model: str) -> Measurement | None:
    """A model's adjusted win rate over games that have verdicts; None without any."""
    return _rate(rows, lambda row: result(row, model))


def over_questions(rows: Iterable[Row], value: Callable[[Row], float]) -> Measurement | None:
    """Mean of a value over rows, with an interval over questions; None without rows."""
    return pooled(rows, lambda row: [float(value(row))])


def pooled(rows: Iterable[Row], values: Callable[[Row], list[float]]) -> Measurement | None:
    """Mean over all values of all rows, with an interval over questions; None without any."""
    sums: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if found := values(row):
            sums[str(row["question_id"])] += found
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
