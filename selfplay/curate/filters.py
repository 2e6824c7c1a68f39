"""Filters over single conversations: each returns the reason to drop a conversation, or None to keep it.

A filter sees one conversation at a time. Deduplication and the scores of models are separate steps, in
`selfplay.curate.selection` and `selfplay.curate.scores`. Trap: refusals are recognised by English phrases only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfplay.chat.conversation import Conversation
from selfplay.chat.drift import SHORT, is_role_drift, normalise
from selfplay.curate.config import CurateConfig
from selfplay.data.cleaning.reasons import Reason, has_pii, in_another_language, too_few_rounds
from selfplay.errors import ConfigError

# re.DOTALL: a refusal may run over a line break between "sorry" and "cannot".
_REFUSAL = re.compile(
    r"\bi('m| am) (sorry|afraid)\b.{0,40}\b(can't|cannot|can not|unable|won't)\b"
    r"|\bi (can't|cannot|can not|won't) (help|assist|do that|provide|comply|answer)"
    r"|\bi('m| am) (unable|not able) to (help|assist|provide|comply|answer)"
    r"|\bas an ai( language model)?\b|\bi must decline\b",
    re.IGNORECASE | re.DOTALL,
)
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter function and the name under which the report counts it."""

    name: str
    reason: Reason


def filters_of(
    config: CurateConfig,
    count_tokens: Callable[[Sequence[str]], list[int]],
    benchmarks: Mapping[str, Callable[[str], bool]],
) -> list[Filter]:
    """Build the filters that a recipe switches on, the cheap ones first.

    Args:
        count_tokens: returns the number of tokens of each text.
        benchmarks: for each benchmark by name, a function that returns whether a text shares a long run of words with
            one of its questions.

    Raises:
        ConfigError: the list of banned words cannot be read.
    """
    filters = [
        Filter("ending", filter_end_reason(config.end_reasons)),
        Filter("length", filter_length(config, count_tokens)),
    ]
    if config.role_drift:
        filters.append(Filter("role drift", drop_role_drift))
    if config.repeats:
        filters.append(Filter("repeats", drop_repeats))
    if config.refusals:
        filters.append(Filter("refusals", drop_refusals))
    if config.banned_words is not None:
        filters.append(Filter("banned words", drop_banned_words(read_words(Path(config.banned_words)))))
    if config.languages:
        filters.append(Filter("languages", in_another_language(frozenset(config.languages))))
    if config.pii:
        filters.append(Filter("personal data", has_pii))
    if benchmarks:
        filters.append(Filter("benchmarks", drop_benchmark_questions(benchmarks)))
    return filters


def filter_end_reason(endings: Sequence[str]) -> Reason:
    """Build the filter by end reason. Human conversations have no end reason and pass."""

    def reason(conversation: Conversation) -> str | None:
        ended = conversation.ended
        # "guardrail" in a recipe covers "guardrail:repeat" and every other rule after the colon.
        fits = ended is None or ended in endings or ended.partition(":")[0] in endings
        return None if fits else f"ended: {ended}"

    return reason


def filter_length(config: CurateConfig, count_tokens: Callable[[Sequence[str]], list[int]]) -> Reason:
    """Build the filter by the number of rounds, the words of the longest turn and the number of tokens."""
    few = too_few_rounds(config.min_rounds)

    def reason(conversation: Conversation) -> str | None:
        if (reason := few(conversation)) is not None:
            return reason
        if config.max_rounds is not None and conversation.rounds > config.max_rounds:
            return f"more than {config.max_rounds} rounds"
        texts = [turn.content for turn in conversation.turns]
        if config.max_turn_words is not None and max(len(text.split()) for text in texts) > config.max_turn_words:
            return f"a turn of more than {config.max_turn_words} words"
        # Tokens come last: counting them is the expensive check.
        if config.max_tokens is not None and sum(count_tokens(texts)) > config.max_tokens:
            return f"more than {config.max_tokens} tokens"
        return None

    return reason


def drop_role_drift(conversation: Conversation) -> str | None:
    """Drop a conversation in which the user speaks as the assistant."""
    answered: str | None = None
    for turn in conversation.turns:
        if turn.role == "user" and is_role_drift(turn.content, answered):
            return "the user speaks as the assistant"
        answered = turn.content if turn.role == "assistant" else answered
    return None


def drop_repeats(conversation: Conversation) -> str | None:
    """Drop a conversation in which one side repeats a turn of four words or more."""
    for role in ("user", "assistant"):
        earlier: set[str] = set()
        for text in conversation.of(role):
            if len(text.split()) >= SHORT and normalise(text) in earlier:
                return f"the {role} repeats a turn"
            earlier.add(normalise(text))
    return None


def drop_refusals(conversation: Conversation) -> str | None:
    """Drop a conversation in which the assistant refuses."""
    return "the assistant refuses" if any(map(_REFUSAL.search, conversation.of("assistant"))) else None


def drop_banned_words(banned: Collection[str]) -> Reason:
    """Build the filter by banned words, which match whole words in any case."""

    def reason(conversation: Conversation) -> str | None:
        words = {word for turn in conversation.turns for word in _WORD.findall(turn.content.casefold())}
        return "a banned word" if words & set(banned) else None

    return reason


def drop_benchmark_questions(benchmarks: Mapping[str, Callable[[str], bool]]) -> Reason:
    """Build the decontamination filter: drop where a turn shares a long run of words with a benchmark question.

    Source: GPT-3, arXiv:2005.14165, appendix C.
    """

    def reason(conversation: Conversation) -> str | None:
        for name, holds in benchmarks.items():
            if any(holds(turn.content) for turn in conversation.turns):
                return f"a question of {name}"
        return None

    return reason


def read_words(path: Path) -> frozenset[str]:
    """Read a list of words, one a line, in lower case.

    Raises:
        ConfigError: the file cannot be read, contains no word, or has a line that is not a single word.
    """
    try:
        words = frozenset(line.strip().casefold() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no list of words that can be read ({error})") from error
    words -= {""}
    if not words:
        raise ConfigError(f"{path}: holds no word; expected one a line")
    if several := sorted(word for word in words if not _WORD.fullmatch(word)):
        raise ConfigError(f"{path}: {several[0]!r} is no single word and would never be met; expected one a line")
    return words
