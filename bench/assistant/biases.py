"""Biases of a judge: position bias, length bias and agreement with itself (arXiv:2306.05685).

Every figure comes from the rows of a judgment file and the answers that were judged; no model is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.assistant.answers import Answers
from bench.assistant.jsonl import Row
from bench.assistant.standings import failure_cause, over_questions, pooled, winner_of_game
from bench.intervals import Measurement, bootstrap

FEWEST = 3
"""Number of scores below which no correlation is computed."""


def judge_figures(rows: Sequence[Row], answers: Mapping[str, Answers]) -> dict[str, Measurement]:
    """Compute every figure that the rows of a judgment file allow, by the name of the figure."""
    judged = [row for row in rows if failure_cause(row) is None]
    paired = bool(judged) and "g1_winner" in judged[0]
    figures = _pair_figures(judged, answers) if paired else _single_figures(judged, answers)
    figures["same verdict, repeats"] = pooled(judged, _repeats_agree)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _pair_figures(judged: Sequence[Row], answers: Mapping[str, Answers]) -> dict[str, Measurement | None]:
    longer = [(row, length) for row in judged if (length := _longer(row, answers)) and winner_of_game(row) != "tie"]
    # By id(row): rows are dicts, which cannot be keys, and one question has a row for each turn and pair.
    favoured = {id(row): float(winner_of_game(row) == length) for row, length in longer}
    return {
        # Winners are names of models, not positions, so the same verdict in both orders reads the same.
        "same verdict, orders": over_questions(judged, lambda row: row["g1_winner"] == row["g2_winner"]),
        "first position wins, where one does": pooled(judged, _decided),
        "longer answer wins, where one does": over_questions([row for row, _ in longer], lambda row: favoured[id(row)]),
    }


def _single_figures(judged: Sequence[Row], answers: Mapping[str, Answers]) -> dict[str, Measurement | None]:
    pairs = [
        (str(row["question_id"]), float(row["score"]), len(text.split()))
        for row in judged
        if (text := _text(answers, str(row["model"]), row)) is not None
    ]
    places: dict[str, list[int]] = defaultdict(list)
    for at, (name, _, _) in enumerate(pairs):
        places[name].append(at)
    scores, lengths = (np.array([pair[at] for pair in pairs], dtype=float) for at in (1, 2))
    if len(pairs) < FEWEST or len({*scores}) < 2 or len({*lengths}) < 2:
        return {"score and length, rank correlation": None}
    members = [np.array(own) for own in places.values()]
    return {
        "score and length, rank correlation": bootstrap(
            len(members), lambda drawn: _spearman(*(side[np.concatenate([members[n] for n in drawn])]
                                                  for side in (scores, lengths)))
        )
    }  # fmt: skip


def _decided(row: Row) -> list[float]:
    """For each of a game's two orders that has a winner: 1 if the winner was in the first position, else 0."""
    # The second order shows the answers the other way round, so model_2 is in the first position there.
    first_of = (("g1_winner", "model_1"), ("g2_winner", "model_2"))
    return [float(row[game] == first) for game, first in first_of if row[game] in ("model_1", "model_2")]


def _longer(row: Row, answers: Mapping[str, Answers]) -> str | None:
    """The side whose answer has more words; None if both have equally many, or an answer is missing."""
    first, second = (_text(answers, str(row[side]), row) for side in ("model_1", "model_2"))
    if first is None or second is None or len(first.split()) == len(second.split()):
        return None
    return "model_1" if len(first.split()) > len(second.split()) else "model_2"


def _text(answers: Mapping[str, Answers], model: str, row: Row) -> str | None:
    """The answer that was judged; None if it is missing."""
    choices = answers.get(model, {}).get(row["question_id"])
    if not choices:
        return None
    # A side with fewer tries was judged with its last one; see `matches._of_question`.
    turns = choices[min(int(row.get("choice", 0)), len(choices) - 1)].turns
    turn = int(row.get("turn", 1))
    return turns[turn - 1] if len(turns) >= turn else None


def _repeats_agree(row: Row) -> list[float]:
    """For each pair of repeated verdicts on one order: 1 if they are the same, else 0."""
    orders = [[verdict for verdict in order if verdict is not None] for order in row.get("repeats", [])]
    return [float(first == second) for order in orders for first, second in combinations(order, 2)]


def _spearman(scores: NDArray[np.float64], lengths: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(side) for side in (scores, lengths)]
    if any(np.ptp(side) == 0 for side in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
