"""What a file of answers or judgments was made by, so that another model's rows do not end in it unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.paper import write_text
from selfplay.errors import ConfigError
from selfplay.settings import differences


def check_made(path: Path, facts: dict[str, Any]) -> None:
    """Compare with what a file was made by, or write it down for a new one. Call while holding the file.

    Raises:
        ConfigError: it was made by something else, which is listed.
    """
    note = path.parent.parent / "made" / f"{path.parent.name}.{path.stem}.json"
    if note.exists() and path.stat().st_size:
        changed = differences(json.loads(note.read_text(encoding="utf-8")), facts)
        if changed:
            raise ConfigError(
                f"{path} was made with other settings: {'; '.join(changed)}. Use the same ones, give another name "
                "(NAME=FOLDER) or --out, or remove the file"
            )
    write_text(note, json.dumps(facts, indent=1) + "\n")
