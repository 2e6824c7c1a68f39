"""The steps a conversation goes through, one after the other, each counted.

A step takes a conversation and gives it back (the same object where nothing changed), or pieces of it, or the reason
for which it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.chat.conversation import Conversation, Role
from selfplay.chat.models import EMBEDDED, locate_model
from selfplay.data.cleaning.artefacts import without_artefacts
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.markup import html_to_markdown
from selfplay.data.cleaning.personal import masked
from selfplay.data.cleaning.reasons import Reason, has_pii, in_another_language, too_few_rounds
from selfplay.data.cleaning.report import Count, Tally
from selfplay.data.cleaning.splitting import pieces, token_lengths

Outcome = Conversation | tuple[Conversation, ...] | str
"""The conversation, pieces of it, or why it is left out."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step under the name its counts have."""

    name: str
    apply: Callable[[Conversation], Outcome]


def steps_of(config: CleanConfig) -> list[Step]:
    """The steps a recipe asks for, in the order they are taken.

    Raises:
        ModelError: the tokenizer that measures pieces cannot be read.
    """
    steps: list[Step] = []
    if config.html:
        steps.append(Step("HTML to Markdown", _rewriting(lambda role, text: html_to_markdown(text))))
    if config.artefacts:
        steps.append(Step("page artefacts", _rewriting(without_artefacts)))
    if config.pii == "mask":
        steps.append(Step("personal data masked", _rewriting(lambda role, text: masked(text))))
    elif config.pii == "drop":
        steps.append(Step("personal data dropped", _dropping(has_pii)))
    if config.languages:
        steps.append(Step("languages", _dropping(in_another_language(frozenset(config.languages)))))
    if config.min_rounds:
        steps.append(Step("rounds", _dropping(too_few_rounds(config.min_rounds))))
    if config.max_tokens is not None:
        lengths = token_lengths(_tokenizer_folder(config.tokenizer))
        limit = config.max_tokens
        steps.append(Step("split", lambda conversation: pieces(conversation, limit, lengths)))
    return steps


def _tokenizer_folder(name: str) -> Path:
    return locate_model(name, "base") if name == EMBEDDED else Path(name).expanduser()


def clean(conversation: Conversation, steps: Sequence[Step], tally: Tally) -> list[Conversation]:
    """Take a conversation through all steps."""
    current = [conversation]
    for step in steps:
        count = tally.steps[step.name]
        current = [kept for before in current for kept in _counted(step, before, count)]
    return current


def _counted(step: Step, before: Conversation, count: Count) -> tuple[Conversation, ...]:
    outcome = step.apply(before)
    count.rows_before += 1
    count.turns_before += len(before.turns)
    if isinstance(outcome, str):
        count.reasons[outcome] += 1
        return ()
    after = outcome if isinstance(outcome, tuple) else (outcome,)
    count.rows_after += len(after)
    count.turns_after += sum(len(kept.turns) for kept in after)
    if after[0] is not before:
        count.rows_changed += 1
        if len(after) == 1:
            changed = sum(a.content != b.content for a, b in zip(before.turns, after[0].turns, strict=False))
            count.turns_changed += changed + len(before.turns) - len(after[0].turns)
    return after


def _rewriting(function: Callable[[Role, str], str]) -> Callable[[Conversation], Outcome]:
    """A step that rewrites turns. The conversation ends before a turn of which nothing is left."""

    def apply(conversation: Conversation) -> Outcome:
        texts = [function(turn.role, turn.content) for turn in conversation.turns]
        if all(
            text is turn.content or text == turn.content for text, turn in zip(texts, conversation.turns, strict=True)
        ):
            return conversation
        turns = []
        cut = False
        for turn, text in zip(conversation.turns, texts, strict=True):
            if text.strip():
                turns.append(replace(turn, content=text.strip()))
            elif turn.role != "system":
                cut = True
                break
        if not any(turn.role == "user" for turn in turns):
            return "nothing left of the first user turn"
        return replace(conversation, turns=tuple(turns), complete=conversation.complete and not cut)

    return apply


def _dropping(reason: Reason) -> Callable[[Conversation], Outcome]:
    """A step that leaves out what has a reason to be left out."""
    return lambda conversation: reason(conversation) or conversation
