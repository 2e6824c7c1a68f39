"""The table of source schemas: name, converter, and the keys by which rows are recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.chat.conversation import Conversation
from selfplay.data.converters import camrest, hh_rlhf, messages, oasst, sgd, sharegpt, taskmaster
from selfplay.errors import BadRow, ConfigError

Converter = Callable[[Mapping[str, Any]], Iterator[Conversation]]


@dataclass(frozen=True, slots=True)
class Format:
    """One source schema. `keys` are the top-level keys every row has."""

    name: str
    keys: frozenset[str]
    convert: Converter


FORMATS = {
    format.name: format
    for format in (
        Format("messages", frozenset({"messages"}), messages.convert),
        Format("sharegpt", frozenset({"conversations"}), sharegpt.convert),
        Format("oasst", frozenset({"message_tree_id", "prompt"}), oasst.convert),
        Format("hh_rlhf", frozenset({"chosen", "rejected"}), hh_rlhf.convert),
        Format("sgd", frozenset({"dialogue_id", "turns"}), sgd.convert),
        Format("taskmaster", frozenset({"conversation_id", "utterances"}), taskmaster.convert),
        Format("camrest", frozenset({"dial"}), camrest.convert),
    )
}


def format_named(name: str) -> Format:
    """Look a format up.

    Raises:
        ConfigError: no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown data format {name!r}; choose one of: {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(row: Mapping[str, Any]) -> Format:
    """The format whose keys a row has.

    Raises:
        BadRow: none fits; the message shows the keys found.
    """
    for format in FORMATS.values():
        if format.keys <= row.keys():
            return format
    expected = "; ".join(f"{format.name} ({', '.join(sorted(format.keys))})" for format in FORMATS.values())
    raise BadRow(f"unknown row format: found keys {', '.join(map(str, row)) or 'none'}; expected one of {expected}")
