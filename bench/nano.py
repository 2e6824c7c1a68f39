"""The score sheet of a small trained pair: likelihood, endings, free self-play; each beside base, rule or people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.intervals import Estimate, ratio
from bench.likelihood import RoleScore, Scorer
from bench.likeness import Likeness, describe, reasons, two_sample_auc
from bench.termination import EndScore, goodbye_rule, sampled_ends, score_ends
from selfplay.chat.conversation import Conversation
from selfplay.serve.backend import Sampling

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Pair:
    """The models to score: folders of the pair and of the base both come from."""

    base: Path
    simulator: Path
    assistant: Path


@dataclass(slots=True)
class Sheet:
    """Scores on one set of human conversations, part by part (all, seen services, unseen services)."""

    title: str
    bits_per_byte: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """part → {user, user base, user gain, assistant, assistant base, assistant gain}; gain = base minus role model."""
    endings: dict[str, dict[str, EndScore]] = field(default_factory=dict)
    """part → {simulator, goodbye rule}."""
    cut: int = 0


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
    for name, folder, role in (
        ("user", pair.simulator, "user"),
        ("user base", pair.base, "user"),
        ("assistant", pair.assistant, "assistant"),
        ("assistant base", pair.base, "assistant"),
    ):
        say(f"{title}: {name} likelihood over {len(conversations)} conversations")
        scores[name] = Scorer(folder).score(conversations, role, sampling if name == "user" else None)  # type: ignore[arg-type]
    sheet.cut = scores["user"].cut
    for part, rows in parts.items():
        sheet.bits_per_byte[part] = _likelihoods(scores, rows)
        sheet.endings[part] = _endings(conversations, scores["user"], rows)
    return sheet


def score_free(people: Sequence[Conversation], simulated: Sequence[Conversation]) -> dict[str, Any]:
    """Free conversations against people: the two rows, the classifier's AUC and the reasons of ending."""
    spoken = [conversation for conversation in simulated if conversation.of("user")]
    equal_n = min(len(people), len(spoken))
    return {
        "people": describe(people, equal_n),
        "simulated": describe(simulated, equal_n),
        "naturalness_auc": two_sample_auc(people, spoken),
        "reasons": reasons(simulated),
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
            rows.append((f"end of conversation F1, {name}", part, str(score.f1)))
            rows.append(
                (f"  precision / recall, {name}", part, f"{score.precision.value:.3f} / {score.recall.value:.3f}")
            )
    return rows


def _free_rows(free: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Free self-play as (figure, simulated, people) rows."""
    simulated, people = free["simulated"], free["people"]
    assert isinstance(simulated, Likeness)
    return [
        ("conversations", f"{simulated.conversations}", f"{people.conversations}"),
        ("rounds", str(simulated.rounds), str(people.rounds)),
        (
            f"distinct first turns (N = {simulated.equal_n})",
            f"{simulated.distinct_openings:.3f}",
            f"{people.distinct_openings:.3f}",
        ),
        ("user turns repeated verbatim", str(simulated.repeats), str(people.repeats)),
        ("words per user turn", str(simulated.words), str(people.words)),
        ("two-sample AUC against people", str(free["naturalness_auc"]), "0.5 by definition"),
        *((f"ended: {reason}", f"{share:.3f}", "") for reason, share in free["reasons"].items()),
    ]


def _parts(conversations: Sequence[Conversation], seen: frozenset[str] | None) -> dict[str, list[int]]:
    """All rows; and, where services are known, those with trained services only and those with a new one."""
    rows = list(range(len(conversations)))
    if seen is None:
        return {"all": rows}
    known = [row for row in rows if set(conversations[row].meta["services"]) <= seen]
    return {"all": rows, "seen services": known, "unseen services": sorted(set(rows) - set(known))}


def _likelihoods(scores: dict[str, RoleScore], rows: list[int]) -> dict[str, Estimate]:
    import numpy as np

    figures = {}
    for role in ("user", "assistant"):
        bits, base_bits = (np.array(scores[name].bits)[rows] for name in (role, f"{role} base"))
        size = np.array(scores[role].bytes, dtype=float)[rows]
        figures[role], figures[f"{role} base"] = ratio(bits, size), ratio(base_bits, size)
        figures[f"{role} gain"] = ratio(base_bits - bits, size)
    return figures


def _endings(conversations: Sequence[Conversation], score: RoleScore, rows: list[int]) -> dict[str, EndScore]:
    """The end decision on whole conversations that fit the context."""
    whole = [
        row
        for row in rows
        if conversations[row].shows_an_ending and len(score.end_probabilities[row]) == conversations[row].rounds
    ]
    chosen = [conversations[row] for row in whole]
    if not chosen:
        return {}
    drawn = sampled_ends(chosen, [score.end_probabilities[row] for row in whole])
    return {
        "simulator": score_ends(chosen, drawn),
        "goodbye rule": score_ends(chosen, [goodbye_rule(conversation) for conversation in chosen]),
    }
