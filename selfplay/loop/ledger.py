"""The ledger of a loop: one JSON file for each stage, so that a kill at any time leaves every other one whole.

An entry has what a stage was made from (settings, inputs by content, code version), what it gave, its figures, and when
and where it ran. A stage whose making is unchanged is not run again; of a changed one the differences are known.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from selfplay.errors import ConfigError, StoreError
from selfplay.files import replacing, try_lock
from selfplay.loop.config import STAGES, Stage
from selfplay.recipe import differences

State = Literal["running", "done", "failed", "interrupted", "stale"]
"""stale: done, but a stage before it is being made again."""
_TRIES = 10
_PACKAGE = Path(__file__).resolve().parents[1]


def as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a ledger has them, JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


@cache
def code_version() -> str:
    """The package's version; with the commit where it runs from a checkout of its own."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(_PACKAGE), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit = git("rev-parse", "--short=12", "HEAD") if git("ls-files", "__init__.py") else None
    changed = ".changed" if commit and git("status", "--porcelain", "--untracked-files=no", ".") else ""
    return version("selfplay") + (f"+{commit}{changed}" if commit else "")


@dataclass(slots=True)
class StageRecord:
    """One stage of one iteration. Times are seconds since 1970."""

    iteration: int
    stage: Stage
    identity: dict[str, Any]
    """Settings, and inputs by content."""
    state: State = "running"
    outputs: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    ended: float | None = None
    before: float = 0.0
    """Seconds of earlier attempts that ended without success."""
    host: str = field(default_factory=socket.gethostname)
    code: str = field(default_factory=code_version)
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took, attempts that failed included; None while it is not known."""
        return None if self.ended is None else self.ended - self.started + self.before


class Ledger:
    """The entries of a loop's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"

    def entry(self, iteration: int, stage: Stage) -> StageRecord | None:
        """A stage's entry, None before it began.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._path(iteration, stage)
        if not path.exists():
            return None
        try:
            return StageRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); remove it to run the stage again") from error

    def write(self, entry: StageRecord) -> None:
        """Keep an entry, whole or not at all."""
        with replacing(self._path(entry.iteration, entry.stage)) as partial:
            partial.write_text(json.dumps(asdict(entry), indent=1, default=str) + "\n", encoding="utf-8")

    def entries(self) -> list[StageRecord]:
        """All entries, in the order of a loop."""
        named = (path.name.partition("-")[0] for path in self.folder.glob("*-*.json"))
        known = sorted(int(name) for name in named if name.isdecimal())
        found = (self.entry(iteration, stage) for iteration in dict.fromkeys(known) for stage in STAGES)
        return [entry for entry in found if entry is not None]

    def changed(self, iteration: int, stage: Stage, identity: Mapping[str, Any]) -> list[str] | None:
        """What differs from how a stage was made, or begun; None: it has not begun."""
        entry = self.entry(iteration, stage)
        return None if entry is None else differences(entry.identity, as_written(identity))

    def outdate(self, iteration: int, stage: Stage) -> None:
        """Mark what was done after a stage as stale: the stage is being made again."""
        place = (iteration, STAGES.index(stage))
        for entry in self.entries():
            if entry.state == "done" and (entry.iteration, STAGES.index(entry.stage)) > place:
                entry.state = "stale"
                self.write(entry)

    def _path(self, iteration: int, stage: Stage) -> Path:
        return self.folder / f"{iteration:03d}-{stage}.json"


def is_locked(folder: Path) -> bool:
    """Whether a process holds a loop's folder now."""
    path = folder / "lock"
    if not path.exists():
        return False
    lock = try_lock(path, "r")
    if lock is None:
        return True
    lock.close()
    return False


@contextmanager
def locked_loop(folder: Path) -> Iterator[None]:
    """Hold a loop's folder; the hold ends with the process, however it ends.

    Raises:
        ConfigError: another loop runs in it, or it can be none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: no folder can be made there ({error.strerror}); name another --out") from error
    for _ in range(_TRIES):
        if (lock := try_lock(folder / "lock")) is not None:
            break
        time.sleep(0.05)  # `is_locked` of another process holds it for a moment
    else:
        raise ConfigError(f"another loop runs in {folder}; give this one another --out")
    with lock:
        yield
