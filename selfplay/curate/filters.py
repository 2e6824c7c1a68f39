"""Why a conversation is not fit to be learned from: one small function a reason. None: it is."""

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
    """A reason under the name its counts have."""

    name: str
    reason: Reason


def filters_of(
    config: CurateConfig,
    count_tokens: Callable[[Sequence[str]], list[int]],
    benchmarks: Mapping[str, Callable[[str], bool]],
) -> list[Filter]:
    """The filters of a recipe, the cheap ones first.

    Args:
        count_tokens: texts to their numbers of tokens.
        benchmarks: by name, whether a text shares words with a question.

    Raises:
        ConfigError: the list of banned words cannot be read.
    """
    found = [
        Filter("ending", filter_end_reason(config.end_reasons)),
        Filter("length", filter_length(config, count_tokens)),
    ]
    if config.role_drift:
        found.append(Filter("role drift", drop_role_drift))
    if config.repeats:
        found.append(Filter("repeats", drop_repeats))
    if config.refusals:
        found.append(Filter("refusals", drop_refusals))
    if config.banned_words is not None:
        found.append(Filter("banned words", drop_banned_words(read_words(Path(config.banned_words)))))
    if config.languages:
        found.append(Filter("languages", in_another_language(frozenset(config.languages))))
    if config.pii:
        found.append(Filter("personal data", has_pii))
    if benchmarks:
        found.append(Filter("benchmarks", drop_benchmark_questions(benchmarks)))
    return found


def filter_end_reason(endings: Sequence[str]) -> Reason:
    """Simulated conversations by the reason they ended for; people's have none and pass."""

    def reason(conversation: Conversation) -> str | None:
        ended = conversation.ended
        fits = ended is None or ended in endings or ended.partition(":")[0] in endings
        return None if fits else f"ended: {ended}"

    return reason


def filter_length(config: CurateConfig, count_tokens: Callable[[Sequence[str]], list[int]]) -> Reason:
    """Rounds, words of the longest turn, tokens in all."""
    few = too_few_rounds(config.min_rounds)

    def reason(conversation: Conversation) -> str | None:
        if (reason := few(conversation)) is not None:
            return reason
        if config.max_rounds is not None and conversation.rounds > config.max_rounds:
            return f"more than {config.max_rounds} rounds"
        texts = [turn.content for turn in conversation.turns]
        if config.max_turn_words is not None and max(len(text.split()) for text in texts) > config.max_turn_words:
            return f"a turn of more than {config.max_turn_words} words"
        if config.max_tokens is not None and sum(count_tokens(texts)) > config.max_tokens:
            return f"more than {config.max_tokens} tokens"
        return None

    return reason


def drop_role_drift(conversation: Conversation) -> str | None:
    """A user who speaks as the assistant."""
    answered: str | None = None
    for turn in conversation.turns:
        if turn.role == "user" and is_role_drift(turn.content, answered):
            return "the user speaks as the assistant"
        answered = turn.content if turn.role == "assistant" else answered
    return None


def drop_repeats(conversation: Conversation) -> str | None:
    """A side that says a turn of four words or more again."""
    for role in ("user", "assistant"):
        said: set[str] = set()
        for text in conversation.of(role):
            if len(text.split()) >= SHORT and normalise(text) in said:
                return f"the {role} repeats a turn"
            said.add(normalise(text))
    return None


def drop_refusals(conversation: Conversation) -> str | None:
    """An assistant that refuses."""
    return "the assistant refuses" if any(map(_REFUSAL.search, conversation.of("assistant"))) else None


def drop_banned_words(banned: Collection[str]) -> Reason:
    """Turns with none of some words, whole words of any case."""

    def reason(conversation: Conversation) -> str | None:
        said = {word for turn in conversation.turns for word in _WORD.findall(turn.content.casefold())}
        return "a banned word" if said & set(banned) else None

    return reason


def drop_benchmark_questions(benchmarks: Mapping[str, Callable[[str], bool]]) -> Reason:
    """No turn shares a long run of words with a benchmark's question (GPT-3, arXiv:2005.14165, appendix C)."""

    def reason(conversation: Conversation) -> str | None:
        for name, holds in benchmarks.items():
            if any(holds(turn.content) for turn in conversation.turns):
                return f"a question of {name}"
        return None

    return reason


def read_words(path: Path) -> frozenset[str]:
    """Words of a file, a line each.

    Raises:
        ConfigError: it cannot be read, holds none, or a line that is no single word.
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
