"""Settings side by side: which keys differ between what a run was made with and what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> list[str]:
    """The keys that differ, as `key: stored → asked`."""
    before, now = flat(stored), flat(asked)
    return [
        f"{key}: {before.get(key)} → {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if key not in ignored and before.get(key) != now.get(key)
    ]
