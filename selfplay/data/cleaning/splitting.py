"""Long conversations to pieces within a token budget, without losing a round.

A round (a user turn and its answer) is never taken apart. A piece that continues another starts with the round before
it as context, where there is room: shown, not learned from. Where there is none, its first user turn is the context, so
that no user simulator learns to open a conversation in the middle. A round longer than the budget is a piece of its
own. Only the last piece shows the ending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.chat.conversation import Conversation, Turn
from selfplay.errors import ModelError

GLUE = 5
"""Tokens a chat template adds to a turn: its header and end, as in ChatML."""

Lengths = Callable[[Sequence[str]], list[int]]
"""Token counts of texts."""


def token_lengths(folder: Path) -> Lengths:
    """Counts by the tokenizer of a model folder.

    Raises:
        ModelError: the folder has no tokenizer.json that can be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(f"{folder}: no tokenizer.json that can be read ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # text is never control

    def lengths(texts: Sequence[str]) -> list[int]:
        return [len(encoded.ids) for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return lengths


@dataclass(frozen=True, slots=True)
class _Round:
    turns: tuple[Turn, ...]
    tokens: int


def pieces(conversation: Conversation, max_tokens: int, lengths: Lengths) -> tuple[Conversation, ...]:
    """The conversation in pieces of at most `max_tokens` tokens, or as it is where it fits."""
    turns = conversation.turns
    if sum(len(turn.content.encode()) for turn in turns) + GLUE * len(turns) <= max_tokens:
        return (conversation,)  # no tokenizer makes more tokens than bytes
    counts = [length + GLUE for length in lengths([turn.content for turn in turns])]
    if sum(counts) <= max_tokens:
        return (conversation,)
    system = 1 if turns[0].role == "system" else 0
    rounds = [
        _Round(turns[start : start + 2], sum(counts[start : start + 2])) for start in range(system, len(turns), 2)
    ]
    groups = _groups(rounds, max_tokens - sum(counts[:system]))
    if len(groups) == 1:
        return (conversation,)
    return tuple(_piece(conversation, system, number, groups) for number in range(len(groups)))


@dataclass(frozen=True, slots=True)
class _Group:
    rounds: list[_Round]
    shown: int
    """How many of its rounds are the previous group's, shown as context."""


def _groups(rounds: list[_Round], budget: int) -> list[_Group]:
    groups: list[_Group] = []
    used = budget + 1
    for number, round in enumerate(rounds):
        if used + round.tokens > budget:
            before = rounds[number - 1] if number else None
            fits = before is not None and before.tokens + round.tokens <= budget
            groups.append(_Group([before] if fits and before else [], int(fits)))
            used = before.tokens if fits and before else 0
        groups[-1].rounds.append(round)
        used += round.tokens
    return groups


def _piece(whole: Conversation, system: int, number: int, groups: list[_Group]) -> Conversation:
    group = groups[number]
    turns = whole.turns[:system] + tuple(turn for round in group.rounds for turn in round.turns)
    context = whole.context if number == 0 else system + (2 * group.shown or 1)
    return replace(
        whole,
        id=f"{whole.id}#{number}",
        turns=turns,
        complete=whole.complete and number == len(groups) - 1,
        context=context,
        meta={"group": whole.id, **whole.meta},
    )
