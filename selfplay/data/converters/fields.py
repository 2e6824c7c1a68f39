"""Typed access to the fields of a raw row, with errors a reader of the file can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfplay.errors import BadRow


def text_field(row: Mapping[str, Any], key: str) -> str:
    """A string field; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, str):
        raise BadRow(f"field {key!r} is {_described(value)}, expected a string")
    return value


def list_field(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """A list of objects; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise BadRow(f"field {key!r} is {_described(value)}, expected a list of objects")
    return value


def object_field(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object field; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, Mapping):
        raise BadRow(f"field {key!r} is {_described(value)}, expected an object")
    return value


def _described(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
