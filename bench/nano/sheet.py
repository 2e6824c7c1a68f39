"""The score sheet of a small trained pair: likelihood, endings, free self-play; each beside base, rule or people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.intervals import Measurement, ratio
from bench.metrics.likelihood import RoleScore, Scorer
from bench.metrics.naturalness import two_sample_auc
from bench.metrics.termination import EndScore, f1_gain, goodbye_rule, sampled_ends, score_ends
from bench.nano.likeness import Likeness, describe, reasons
from bench.tables import Table
from selfplay.chat.conversation import Conversation, Role
from selfplay.serve.config import Sampling


@dataclass(frozen=True, slots=True)
class Pair:
    """The models to score: folders of the pair and of the base both come from."""

    base: Path
    simulator: Path
    assistant: Path


@dataclass(frozen=True, slots=True)
class NanoScores:
    """Everything that is scored of a pair: a sheet for each human set, and free self-play beside people."""

    sheets: list[Sheet]
    free: dict[str, Any]


@dataclass(slots=True)
class Sheet:
    """Scores on one set of human conversations, part by part (all, seen services, unseen services)."""

    title: str
    bits_per_byte: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    """part → {user, user base, user gain, assistant, assistant base, assistant gain}; gain = base minus role model."""
    endings: dict[str, dict[str, EndScore]] = field(default_factory=dict)
    """part → {simulator, goodbye rule}."""
    f1_gain: dict[str, Measurement] = field(default_factory=dict)
    """part → F1 of the simulator minus F1 of the rule, paired."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What was not scored, or not whole, by reason."""


def score_humans(
    title: str,
    conversations: Sequence[Conversation],
    pair: Pair,
    sampling: Sampling,
    seen: frozenset[str] | None,
    say: Callable[[str], None],
) -> Sheet:
    """Likelihood of both roles and the end decision on human conversations.

    Args:
        seen: services that were trained on; None: the set is not split by service.
    """
    sheet = Sheet(title)
    parts = _parts(conversations, seen)
    scores: dict[str, RoleScore] = {}
    scored: tuple[tuple[str, Path, Role], ...] = (
        ("user", pair.simulator, "user"),
        ("user base", pair.base, "user"),
        ("assistant", pair.assistant, "assistant"),
        ("assistant base", pair.base, "assistant"),
    )
    for name, folder, role in scored:
        say(f"{title}: {name} likelihood over {len(conversations)} conversations")
        scores[name] = Scorer(folder).score(conversations, role, [sampling] if name == "user" else [])
    for part, rows in parts.items():
        sheet.bits_per_byte[part] = _likelihoods(scores, rows)
        _score_endings(sheet, part, conversations, scores["user"], rows)
    decided = sheet.endings["all"]["simulator"].f1.n if "all" in sheet.endings else 0
    sheet.left_out = {
        "longer than the context, scored up to it": scores["user"].cut,
        "without a known ending within the context, no end decision scored": len(conversations) - decided,
    }
    return sheet


def score_free(people: Sequence[Conversation], simulated: Sequence[Conversation]) -> dict[str, Any]:
    """Free conversations against people: rows, classifiers and the reasons of ending.

    Pieces that were cut at their source have fewer rounds than people had, so people's whole conversations have a row
    of their own.
    """
    spoken = [conversation for conversation in simulated if conversation.of("user")]
    equal_n = min(len(people), len(spoken))
    return {
        "people": describe(people, equal_n),
        "people_whole": describe([conversation for conversation in people if conversation.complete], equal_n),
        "simulated": describe(simulated, equal_n),
        "naturalness_auc": two_sample_auc(people, spoken),
        "people_auc": two_sample_auc(people[::2], people[1::2]),
        "reasons": reasons(simulated),
        "silent": len(simulated) - len(spoken),
    }


def tables(sheets: Sequence[Sheet], free: dict[str, Any]) -> list[Table]:
    """All scores as tables: title, header, rows."""
    human = [(sheet.title, ("figure", "part", "value"), _rows_of(sheet)) for sheet in sheets]
    return [*human, ("free self-play", ("figure", "simulated", "people"), _free_rows(free))]


def _rows_of(sheet: Sheet) -> list[tuple[str, str, str]]:
    """The sheet as (figure, part, value) rows."""
    rows = []
    for part, figures in sheet.bits_per_byte.items():
        rows += [(f"bits per byte, {name}", part, str(value)) for name, value in figures.items()]
    for part, ends in sheet.endings.items():
        for name, score in ends.items():
            rows.append((f"end F1, {name}", part, str(score.f1)))
            rows.append((f"end precision, {name}", part, str(score.precision)))
            rows.append((f"end recall, {name}", part, str(score.recall)))
        rows.append(("end F1, simulator minus rule", part, str(sheet.f1_gain[part])))
    rows += [(reason, "all", str(count)) for reason, count in sheet.left_out.items()]
    return rows


def _free_rows(free: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Free self-play as (figure, simulated, people) rows."""
    simulated, people = free["simulated"], free["people"]
    assert isinstance(simulated, Likeness)
    return [
        ("rounds", str(simulated.rounds), str(people.rounds)),
        ("rounds, people's whole conversations only", "", str(free["people_whole"].rounds)),
        (
            f"distinct first turns (N = {simulated.equal_n})",
            str(simulated.distinct_openings),
            str(people.distinct_openings),
        ),
        ("user turns repeated verbatim", str(simulated.repeats), str(people.repeats)),
        ("words per user turn", str(simulated.words), str(people.words)),
        ("two-sample AUC against people", str(free["naturalness_auc"]), "0.5: cannot be told apart"),
        ("two-sample AUC, two halves of people", "", str(free["people_auc"])),
        *((f"ended: {reason}", f"{share:.3f}", "") for reason, share in free["reasons"].items()),
        ("simulated conversations without a user turn, left out of the AUC", str(free["silent"]), ""),
    ]


def _parts(conversations: Sequence[Conversation], seen: frozenset[str] | None) -> dict[str, list[int]]:
    """All rows; and, where services are known, those with trained services only and those with a new one."""
    rows = list(range(len(conversations)))
    if seen is None or not all("services" in conversation.meta for conversation in conversations):
        return {"all": rows}
    seen_rows = [row for row in rows if set(conversations[row].meta["services"]) <= seen]
    parts = {"all": rows, "seen services": seen_rows, "unseen services": sorted(set(rows) - set(seen_rows))}
    return {name: part for name, part in parts.items() if part}


def _likelihoods(scores: dict[str, RoleScore], rows: list[int]) -> dict[str, Measurement]:
    import numpy as np

    figures = {}
    for role in ("user", "assistant"):
        bits, base_bits = (np.array(scores[name].bits)[rows] for name in (role, f"{role} base"))
        size = np.array(scores[role].bytes, dtype=float)[rows]
        figures[role], figures[f"{role} base"] = ratio(bits, size), ratio(base_bits, size)
        figures[f"{role} gain"] = ratio(base_bits - bits, size)
    return figures


def _score_endings(
    sheet: Sheet, part: str, conversations: Sequence[Conversation], score: RoleScore, rows: list[int]
) -> None:
    """The end decision on whole conversations that fit the context."""
    whole = [
        row
        for row in rows
        if conversations[row].has_end_target and len(score.ends[0][row]) == conversations[row].rounds
    ]
    chosen = [conversations[row] for row in whole]
    if not chosen:
        return
    drawn = sampled_ends(chosen, [score.ends[0][row] for row in whole])
    rule = [goodbye_rule(conversation) for conversation in chosen]
    sheet.endings[part] = {"simulator": score_ends(chosen, drawn), "goodbye rule": score_ends(chosen, rule)}
    sheet.f1_gain[part] = f1_gain(chosen, drawn, rule)
