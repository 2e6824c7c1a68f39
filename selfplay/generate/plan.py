"""The conversations of a run: how many there are, and each one's id, seed and opening.

A conversation's spec depends on the settings and its number alone, so it is the same whenever and wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from selfplay.chat.conversation import Turn
from selfplay.errors import ConfigError, StoreError
from selfplay.generate.config import GenerateConfig
from selfplay.seeds import derive_seed
from selfplay.store.records import ConversationSpec
from selfplay.store.store import is_run, open_run
from simulator.opening import read_openings

DEFAULT_CONVERSATIONS = 32
Openings = Sequence[tuple[Turn, ...]]
"""The first turns of conversations, in the order of their file."""


def openings_of(config: GenerateConfig) -> Openings:
    """The openings that the settings name; none: the simulator opens freely.

    Raises:
        DataError: they cannot be read.
        ConfigError: they have system prompts, and the assistant is given one too.
    """
    name = config.simulator.openings
    openings = read_openings(Path(name)) if name else []
    if config.assistant.system is not None and any(turns[0].role == "system" for turns in openings):
        raise ConfigError(f"{name}: has system turns, and --system is given too; use one of them")
    return openings


def conversation_specs(
    config: GenerateConfig, openings: Openings | None = None, start: int = 0
) -> Iterator[ConversationSpec]:
    """Every conversation of the run from number `start` on. Checked at once, made as they are read.

    Args:
        openings: those of the settings, where they have been read already.

    Raises:
        DataError: the openings cannot be read.
        ConfigError: more conversations than openings, or two system prompts.
    """
    given = openings_of(config) if openings is None else openings
    count = conversation_count(config, given)
    prompt = config.assistant.system
    system = () if prompt is None else (Turn("system", prompt, "fixed"),)
    return (_spec(config, given, system, number) for number in range(start, count))


def conversation_count(config: GenerateConfig, openings: Openings) -> int:
    """How many conversations the run has.

    Raises:
        ConfigError: more than the openings give.
    """
    each = config.simulator.conversations_per_opening
    available = len(openings) * each
    count = config.conversations or available or DEFAULT_CONVERSATIONS
    if openings and count > available:
        raise ConfigError(
            f"{count} conversations asked for, but {config.simulator.openings} × conversations_per_opening {each} "
            f"gives {available}; raise conversations_per_opening or lower conversations"
        )
    return count


def _spec(config: GenerateConfig, openings: Openings, system: tuple[Turn, ...], number: int) -> ConversationSpec:
    name = f"c{number:06d}"
    given = openings[number // config.simulator.conversations_per_opening] if openings else ()
    way = "prompted" if config.simulator.prompted else "usergpt"
    return ConversationSpec(number, name, derive_seed(config.seed, name), (*system, *given), way)


def with_conversation_count(
    config: GenerateConfig, openings: Openings, *, resume: bool, append: bool
) -> GenerateConfig:
    """The config with its number of conversations: asked for, or what the run in the folder has, or grown by it.

    Raises:
        ConfigError: nothing says by how many conversations to grow, or more than the openings give.
        StoreError: no run to resume or append to.
    """
    if not (resume or append):
        return config.model_copy(update={"conversations": conversation_count(config, openings)})
    folder = Path(str(config.out))
    if not is_run(folder):
        raise StoreError(f"{folder}: no run to go on with; start it without --resume or --append")
    if append and config.conversations is None:
        raise ConfigError("--append needs -n, the number of conversations to add")
    with open_run(folder) as run:
        planned, _ = run.counts()
    asked = config.conversations or 0
    return config.model_copy(update={"conversations": planned + asked if append else asked or planned})
