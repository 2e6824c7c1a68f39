"""Client of the judge: asks for verdicts and writes the judgments in FastChat's files.

The files are `model_judgment/JUDGE_single.jsonl` and `JUDGE_pair.jsonl`. The module does not know which judgments a
benchmark needs (`matches`) or how a verdict is written in a text (`verdicts`).

If a verdict cannot be parsed, the judge is asked again at a higher temperature. A judgment that still has no verdict is
written as FastChat writes it (score -1, winner `error`), with its cause as an additional key, and counted wherever
scores are shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.assistant.answers import ERROR
from bench.assistant.jsonl import Row, RowFile
from bench.assistant.matches import Match, key_of
from bench.assistant.verdicts import RATING, rating_of, schema_of, winner_of
from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import Usage, failed
from selfplay.errors import RequestError
from selfplay.seeds import derive_seed
from selfplay.serve.chat_model import ChatModel
from selfplay.serve.config import Sampling
from selfplay.serve.run_all import run_all

TRIES = 3
WARMER = 0.7
"""Temperature of the tries after an unparsed verdict; the first try is greedy, as in FastChat."""
UNPARSED, CUT, TOO_LONG = "unparsed", "unparsed:cut", "too_long"
_PLACES = ("A", "tie", "B")
PASSING = (UNPARSED, "failed:")
"""Beginnings of the causes that another run tries again; "unparsed" covers "unparsed:cut" as well."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Settings of judging: how verdicts are asked for."""

    repeats: int = 1
    """Number of verdicts on each answer; their median counts."""
    max_tokens: int = 2048
    structured: bool = False
    """Whether the judge is asked for JSON by schema."""
    seed: int = 0


@dataclass(slots=True)
class JudgeResult:
    """Result of `judge_all`: judgments known before, matches asked now, and judgments without a verdict."""

    known: int = 0
    asked: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)
    """Judgments without a verdict by cause, those of earlier runs included."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A verdict of the judge: a rating or a winner, or the cause for which there is none."""

    value: Any
    text: str
    cause: str | None
    usage: Usage
    detail: str = ""
    """The error message of the server, if a request failed."""


async def judge_all(
    matches: Sequence[Match],
    file: RowFile,
    judge: ChatModel,
    how: Judging,
    on_done: Callable[[Usage], None] = lambda used: None,
) -> JudgeResult:
    """Judge the matches that have no judgment yet, all of them concurrently.

    The row of a match is written when its last verdict has arrived.

    Args:
        on_done: called after each match with the tokens that it took.

    Raises:
        BackendError: the judge is gone. The rows that were written stay; the same command continues with the others.
    """
    pending = unjudged(matches, file.rows, judge.name, how.repeats)
    done = JudgeResult(known=len(matches) - len(pending))

    async def judge_match(match: Match) -> None:
        used = Usage()
        if match.unanswered is not None:  # nothing to ask: a row of two failed orders, of which a grade uses the first
            file.append(_row(match, judge.name, how, [[_Verdict(None, ERROR, match.unanswered, Usage())]] * 2))
        else:
            orders = [await _verdicts(match, order, judge, how) for order in range(len(match.asked))]
            used = sum((verdict.usage for tries in orders for verdict in tries), used)
            file.append(_row(match, judge.name, how, orders))
            done.asked += 1
        on_done(used)

    order = {match.key(judge.name): number for number, match in enumerate(matches)}
    try:
        await run_all(map(judge_match, pending))
    finally:  # a match that was judged again has two rows until here
        file.sort_and_dedup(key_of, lambda row: order.get(key_of(row), len(order)))
    done.unjudged = Counter(row["cause"] for row in file.rows if "cause" in row and key_of(row) in order)
    return done


def unjudged(matches: Sequence[Match], rows: Sequence[Row], judge: str, repeats: int = 1) -> list[Match]:
    """The matches that have no settled judgment of exactly these answers with this number of repeats.

    The prompt is part of the comparison, since it contains the answers: new answers are judged again.
    """
    settled = {key for row in rows if _settled(row, repeats) for key in _known_by(row)}
    return [match for match in matches if (*match.key(judge), (match.asked or (ERROR,))[0]) not in settled]


def _known_by(row: Row) -> list[tuple[Any, ...]]:
    """Key and first prompt of a row; a game is also known by those of its models the other way round."""
    keys = [(*key_of(row), _asked(row))]
    if "model_1" in row:
        turned = {**row, "model_1": row["model_2"], "model_2": row["model_1"]}
        keys.append((*key_of(turned), str(row.get("g2_user_prompt"))))
    return keys


def _settled(row: Row, repeats: int) -> bool:
    times = len(row["repeats"][0]) if "repeats" in row else 1
    return not row.get("cause", "").startswith(PASSING) and (times == repeats or _asked(row) == ERROR)


def _asked(row: Row) -> str:
    return str(row["user_prompt"] if "user_prompt" in row else row.get("g1_user_prompt"))


async def _verdicts(match: Match, order: int, judge: ChatModel, how: Judging) -> list[_Verdict]:
    return [await _verdict(match, order, repeat, judge, how) for repeat in range(how.repeats)]


async def _verdict(match: Match, order: int, repeat: int, judge: ChatModel, how: Judging) -> _Verdict:
    """Ask for one verdict, up to three times while it cannot be parsed."""
    turns = [Turn("system", match.system, "fixed"), Turn("user", match.asked[order], "fixed")]
    seed = derive_seed(how.seed, *map(str, match.key("")), order, repeat)
    schema = schema_of(match.format) if how.structured else None
    usage, text, cut = Usage(), "", False
    for attempt in range(TRIES):
        # A repeat is warm from its first try on: greedy repeats would all give the same verdict.
        warm = WARMER if attempt or repeat else 0.0
        sampler = judge.sampler(Sampling(temperature=warm, max_tokens=how.max_tokens), schema)
        try:
            sampled = await sampler.sample(turns, seed, attempt)
        except RequestError as error:
            return _Verdict(None, ERROR, failed(error.cause), usage, str(error))
        if sampled is None:
            return _Verdict(None, ERROR, TOO_LONG, usage)
        usage += sampled.usage
        text, cut = sampled.turn.content, sampled.cut
        value = rating_of(text) if match.format == RATING else winner_of(text, match.format)
        if value is not None:
            return _Verdict(value, text, None, usage)
    return _Verdict(None, text, CUT if cut else UNPARSED, usage)


def _row(match: Match, judge: str, how: Judging, orders: Sequence[Sequence[_Verdict]]) -> Row:
    """Build the row of a judgment with FastChat's keys in FastChat's order, then the keys that FastChat lacks."""
    asked = match.asked or (ERROR, ERROR)
    lost = [tries[0] for tries in orders if not any(verdict.cause is None for verdict in tries)]
    if len(match.models) == 1:
        score, verdict = _score(orders[0])
        row = {
            "question_id": match.question,
            "model": match.models[0],
            "judge": [judge, match.prompt],
            "user_prompt": asked[0],
            "judgment": verdict.text,
            "score": score,
            "turn": match.turn,
            "tstamp": time.time(),
        }
    else:
        (first, first_verdict), (second, second_verdict) = (_winner(tries, order) for order, tries in enumerate(orders))
        row = {
            "question_id": match.question,
            "model_1": match.models[0],
            "model_2": match.models[1],
            "g1_winner": first,
            "g2_winner": second,
            "judge": [judge, match.prompt],
            "g1_user_prompt": asked[0],
            "g1_judgment": first_verdict.text,
            "g2_user_prompt": asked[1],
            "g2_judgment": second_verdict.text,
            "turn": match.turn,
            "tstamp": time.time(),
        }
    return row | _beyond_fastchat(match, how, orders, lost)


def _beyond_fastchat(match: Match, how: Judging, orders: Sequence[Sequence[_Verdict]], lost: Sequence[_Verdict]) -> Row:
    """The keys that FastChat lacks; each exists only where it carries information."""
    row: Row = {}
    if match.choice:
        row["choice"] = match.choice
    if how.repeats > 1 and match.asked:
        row["repeats"] = [[verdict.value for verdict in tries] for tries in orders]
    if lost:
        row["cause"] = lost[0].cause
        row |= {"detail": lost[0].detail} if lost[0].detail else {}
    return row


def _score(tries: Sequence[_Verdict]) -> tuple[int | float, _Verdict]:
    """The median rating, and the verdict nearest to it."""
    rated = [verdict for verdict in tries if verdict.cause is None]
    if not rated:
        return -1, tries[0]
    middle = median(verdict.value for verdict in rated)
    return middle, min(rated, key=lambda verdict: abs(verdict.value - middle))


def _winner(tries: Sequence[_Verdict], order: int) -> tuple[str, _Verdict]:
    """The median of one order's verdicts on the scale A, tie, B, and a verdict that agrees with it."""
    names: Mapping[str, str] = {"A": "model_1", "B": "model_2"} if order == 0 else {"A": "model_2", "B": "model_1"}
    parsed = [verdict for verdict in tries if verdict.cause is None]
    if not parsed:
        return "error", tries[0]
    # int() rounds towards 0, so a median half-way between a tie and a winner is a tie, whoever the winner is.
    middle = int(median(_PLACES.index(verdict.value) - 1 for verdict in parsed))
    winner = _PLACES[middle + 1]
    shown = next((verdict for verdict in parsed if verdict.value == winner), parsed[0])
    return names.get(winner, winner), shown
