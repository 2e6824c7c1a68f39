"""The provenance of answer and judgment files, so that the rows of another model never end in them unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.tables import write_text
from selfplay.errors import ConfigError
from selfplay.recipe import differences


def check_provenance(path: Path, facts: dict[str, Any], unsaid: tuple[str, ...] = ()) -> bool:
    """Compare with what a file was made by, or write it down. Call while holding the file.

    Args:
        unsaid: keys that are not known yet; the others are compared, and nothing is written.

    Returns:
        False: there are rows of which nothing says where they come from.

    Raises:
        ConfigError: it was made by something else, which is listed.
    """
    note = path.parent.parent / "made" / f"{path.parent.name}.{path.stem}.json"
    begun = path.stat().st_size > 0
    if note.exists() and begun:
        changed = differences(json.loads(note.read_text(encoding="utf-8")), facts, unsaid)
        if changed:
            raise ConfigError(
                f"{path} was made with other settings: {'; '.join(changed)}. Use the same ones, give another name "
                "(NAME=FOLDER) or --out, or remove the file"
            )
    known = note.exists() or not begun
    if unsaid:
        return known
    write_text(note, json.dumps(facts, indent=1) + "\n")
    return known
