"""`selfplay loop`: the stages of every iteration; what is done is skipped, what was interrupted is finished.

A loop's folder holds `loop.yaml` (the recipe it last ran with), `ledger/` (a file a stage), a folder an iteration, and
`stopped.json` (why it is over before its last iteration).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfplay.config import load_recipe
from selfplay.errors import ConfigError, SelfplayError, StoreError
from selfplay.inputs import with_data
from selfplay.jobs import Job, Plan
from selfplay.loop.figures import Found, by_iteration
from selfplay.loop.health import Checked, alarms, check
from selfplay.loop.ledger import Entry, Ledger, alone, is_held
from selfplay.loop.stages import STAGES, LoopConfig
from selfplay.loop.stopping import out_of_budget, spent, without_gain
from selfplay.writing import replacing

Say = Callable[[str], None]
RECIPE, STOPPED = "loop.yaml", "stopped.json"


@dataclass(frozen=True, slots=True)
class Looped:
    """A loop as it stands."""

    folder: Path
    config: LoopConfig
    entries: list[Entry]
    stopped: str | None
    """Why it is over before its last iteration."""
    alarmed: bool
    """Whether that is an alarm."""
    running: bool

    @property
    def found(self) -> dict[int, Found]:
        """Figures of finished stages by iteration."""
        return _found(self.entries)

    @property
    def checked(self) -> list[Checked]:
        """Limits looked at, by iteration."""
        return check(self.found, self.config.health)


def loop(config: LoopConfig, out: str | Path, say: Say = print) -> Looped:
    """Run every iteration; a stage that is done and unchanged is skipped.

    Raises:
        SelfplayError: a stage failed (the ledger says which, the same command goes on), or another loop runs there.
    """
    folder = Path(out)
    with alone(folder):
        ledger = Ledger(folder)
        config = with_data(config, folder, bool(ledger.entries()), say)
        _write(folder / RECIPE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        (folder / STOPPED).unlink(missing_ok=True)
        over = _iterate(config, ledger, Plan(config, folder, say), say)
        if over is not None:
            reason, alarmed = over
            say(f"the loop stops: {reason}")
            _write(folder / STOPPED, json.dumps({"reason": reason, "alarm": alarmed}) + "\n")
    return loop_status(folder)


def loop_status(folder: str | Path) -> Looped:
    """What a loop has done so far, whether it runs, and why it stopped.

    Raises:
        ConfigError: there is none.
        StoreError: what it wrote cannot be read.
    """
    found = Path(folder)
    entries = Ledger(found).entries()
    if not entries or not (found / RECIPE).exists():
        raise ConfigError(f"{found}: no loop in it; start one with `selfplay loop RECIPE --out {found}`")
    running = is_held(found)
    for entry in entries:
        if entry.state == "running" and not running:
            entry.state, entry.error = "interrupted", "the process was killed; the same command goes on with it"
    stopped: dict[str, Any] = {}
    if (found / STOPPED).exists():
        try:
            stopped = json.loads((found / STOPPED).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{found / STOPPED}: cannot be read ({error}); the loop's command writes it again"
            ) from error
    config = load_recipe(str(found / RECIPE), LoopConfig)
    return Looped(found, config, entries, stopped.get("reason"), bool(stopped.get("alarm")), running)


def _iterate(config: LoopConfig, ledger: Ledger, plan: Plan, say: Say) -> tuple[str, bool] | None:
    """All stages in order; why it is over early, and whether that is an alarm."""
    for iteration in range(config.iterations + 1):
        for stage in STAGES:
            job = plan.job(iteration, stage)
            if job is None or _is_done(ledger, job, say):
                continue
            tokens, hours = spent((entry.seconds or 0.0, entry.figures) for entry in ledger.entries())
            if (reason := out_of_budget(config.stop, tokens, hours)) is not None:
                return reason, False
            _run(ledger, job, say)
        found = _found(entry for entry in ledger.entries() if entry.iteration <= iteration)
        for alarm in alarms(check(found, config.health), iteration):
            say(f"{'ALARM' if alarm.limit.then == 'stop' else 'WARNING'}, iteration {iteration}: {alarm}")
            if alarm.limit.then == "stop":
                return f"collapse alarm in iteration {iteration}: {alarm}", True
        if iteration < config.iterations and (reason := without_gain(config.stop, found, iteration)) is not None:
            return reason, False
    return None


def _found(entries: Any) -> dict[int, Found]:
    return by_iteration((entry.iteration, entry.figures) for entry in entries if entry.state == "done")


def _is_done(ledger: Ledger, job: Job, say: Say) -> bool:
    """Whether a stage is there and unchanged; what changed is said."""
    changed = ledger.changed(job.iteration, job.stage, job.made_from)
    if changed == [] and job.output.exists():
        say(f"{_name(job)}: done before")
        return True
    if changed:
        say(f"{_name(job)}: made again, since {'; '.join(changed)}")
    return False


def _run(ledger: Ledger, job: Job, say: Say) -> None:
    """Finish or do one stage, and keep the ledger."""
    before = ledger.entry(job.iteration, job.stage)
    entry = Entry(job.iteration, job.stage, _plain(job.made_from))
    if before is None or before.made_from != entry.made_from:
        _put_aside(job.output)
    elif before.state != "done":
        entry.before = before.seconds or 0.0
    ledger.write(entry)
    say(f"{_name(job)}: begins")
    try:
        entry.figures = job.work()
        entry.state = "done"
    except KeyboardInterrupt:
        entry.state, entry.error = "interrupted", "Ctrl-C; the same command goes on with it"
        raise
    except OSError as error:
        entry.state, entry.error = "failed", f"{error}; once that is put right, the same command goes on with it"
        raise SelfplayError(f"{_name(job)}: {entry.error}") from error
    except BaseException as error:
        told = str(error) if isinstance(error, SelfplayError) else f"{type(error).__name__}: {error}"
        entry.state, entry.error = "failed", told
        raise
    finally:
        entry.ended = time.time()
        entry.outputs = {job.output.name: str(job.output)}
        _keep(ledger, entry, say)


def _keep(ledger: Ledger, entry: Entry, say: Say) -> None:
    """Write an entry; on a disk that is full, what broke the stage must not be hidden by this."""
    try:
        ledger.write(entry)
    except OSError as error:
        if entry.state == "done":
            raise SelfplayError(f"{ledger.folder}: cannot be written ({error}); the same command goes on") from error
        say(f"{ledger.folder}: cannot be written either ({error}); `status` will call the stage interrupted")


def _name(job: Job) -> str:
    return f"iteration {job.iteration}, {job.stage}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _put_aside(output: Path) -> None:
    """Keep what another making left, and the reports beside it, under other names."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06d}"
    for path in sorted(output.parent.glob(f"{output.name}*")):
        if path == output or (path.name.startswith(f"{output.name}.") and ".aside-" not in path.name):
            path.rename(path.with_name(f"{path.name}.aside-{stamp}"))
