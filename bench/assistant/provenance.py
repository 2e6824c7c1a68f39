"""Provenance records of answer and judgment files: the model and the settings that their rows come from.

They prevent a file from silently getting rows of another model. A record is `made/FOLDER.FILE.json` beside the folder
of the file; a file that was copied from elsewhere has none at first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.tables import write_text
from selfplay.errors import ConfigError
from selfplay.recipe import differences


def check_provenance(path: Path, facts: dict[str, Any], unsaid: tuple[str, ...] = ()) -> bool:
    """Compare the provenance record of a file with `facts`, or write the record. Call it with the file locked.

    Args:
        unsaid: keys whose values are not known yet; the other keys are compared, and no record is written.

    Returns:
        False if the file has rows without a record of where they come from.

    Raises:
        ConfigError: the file was made with other settings, which are listed.
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
    provenance_known = note.exists() or not begun
    if unsaid:
        return provenance_known
    write_text(note, json.dumps(facts, indent=1) + "\n")
    return provenance_known
