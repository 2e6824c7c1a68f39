"""`selfplay loop`: the stages of every iteration; what is done is skipped, what was interrupted is finished.

A loop's folder holds `loop.yaml` (the recipe it last ran with), `ledger/` (a file a stage), a folder an iteration, and
`stopped.json` (why it is over before its last iteration).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from selfplay.errors import ConfigError, SelfplayError, StoreError
from selfplay.files import replacing
from selfplay.generate.run import Watch, ignore
from selfplay.loop.config import STAGES, LoopConfig, Stage
from selfplay.loop.health import Checked, alarms, check, unchecked
from selfplay.loop.inputs import with_data
from selfplay.loop.ledger import Entry, Ledger, alone, as_written, is_held
from selfplay.loop.metrics import Found, by_iteration
from selfplay.loop.plan import Job, Plan
from selfplay.loop.stages.training import ADAPTERS, release_gpu
from selfplay.loop.stopping import out_of_budget, spent, without_gain
from selfplay.recipe import load_recipe
from selfplay.store.store import is_run, open_run

Say = Callable[[str], None]
RECIPE, STOPPED = "loop.yaml", "stopped.json"
_NO_ROOM = "No space left on device"
_FIGURES = 4
"""Figures that are said when a stage is done; `status` and the report have the others."""


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


def loop(config: LoopConfig, out: str | Path, say: Say = print, watch: Watch = lambda: nullcontext(ignore)) -> Looped:
    """Run every iteration; a stage that is done and unchanged is skipped.

    Args:
        watch: shows how generating goes, while it goes.

    Raises:
        SelfplayError: a stage failed (the ledger says which, the same command goes on), or another loop runs there.
    """
    folder = Path(out)
    with alone(folder):
        try:
            _loop(config, folder, say, watch)
        except OSError as error:
            raise SelfplayError(f"{folder}: {error}; once that is put right, the same command goes on") from error
    return loop_status(folder)


def _loop(config: LoopConfig, folder: Path, say: Say, watch: Watch) -> None:
    ledger = Ledger(folder)
    config = with_data(config, folder, bool(ledger.entries()), say)
    plan = Plan(config, folder, say, watch)
    plan.check()
    _write(folder / RECIPE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    (folder / STOPPED).unlink(missing_ok=True)
    over = _iterate(config, ledger, plan, say)
    if over is not None:
        _stop(folder, *over)
        say(f"the loop stops: {over[0]}; with looser rules or limits the same command goes on")


def _stop(folder: Path, reason: str, alarm: bool) -> None:
    _write(folder / STOPPED, json.dumps({"reason": reason, "alarm": alarm}) + "\n")


def loop_status(folder: str | Path) -> Looped:
    """What a loop has done so far, whether it runs, and why it stopped.

    Raises:
        ConfigError: there is none.
        StoreError: what it wrote cannot be read.
    """
    found = Path(folder)
    if not (found / RECIPE).exists():
        raise ConfigError(f"{found}: no loop in it; start one with `selfplay loop RECIPE --out {found}`")
    config = load_recipe(str(found / RECIPE), LoopConfig)
    entries = [entry for entry in Ledger(found).entries() if entry.iteration <= config.iterations]
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
    return Looped(found, config, entries, stopped.get("reason"), bool(stopped.get("alarm")), running)


def progress_of(looped: Looped, entry: Entry) -> str | None:
    """How far a stage is that has not ended; None: it cannot be told."""
    output = next(map(Path, entry.outputs.values()), None)
    if entry.state == "done" or output is None:
        return None
    here = looped.folder / f"{entry.iteration:03d}" / output.name
    if entry.stage == "generate" and is_run(here):
        with open_run(here) as run:
            planned, ended = run.counts()
        return f"{ended:,} of {planned:,} conversations"
    folders = (here, here.with_name(here.name + ADAPTERS))
    steps = [int(path.name.partition("-")[2]) for folder in folders for path in folder.glob("checkpoints/checkpoint-*")]
    return f"saved at step {max(steps):,}" if steps else None


def _iterate(config: LoopConfig, ledger: Ledger, plan: Plan, say: Say) -> tuple[str, bool] | None:
    """All stages in order; why it is over early, and whether that is an alarm."""
    for iteration in range(config.iterations + 1):
        for stage in STAGES:
            job = _planned(ledger, plan, iteration, stage)
            if job is None or _is_done(ledger, job, say):
                continue
            tokens, hours = spent((entry.seconds or 0.0, entry.figures) for entry in ledger.entries())
            if (reason := out_of_budget(config.stop, tokens, hours)) is not None:
                return reason, False
            _run(ledger, job, say)
        found = _found(entry for entry in ledger.entries() if entry.iteration <= iteration)
        checked = check(found, config.health)
        for figure in unchecked(found, config.health, iteration):
            say(f"WARNING, iteration {iteration}: {figure} was not measured, its limit cannot be looked at")
        for alarm in alarms(checked, iteration):
            say(f"{'ALARM' if alarm.limit.then == 'stop' else 'WARNING'}, iteration {iteration}: {alarm}")
            if alarm.limit.then == "stop":
                return f"collapse alarm in iteration {iteration}: {alarm}", True
        if iteration < config.iterations and (reason := without_gain(config.stop, found, iteration)) is not None:
            return reason, False
    return None


def _found(entries: Iterable[Entry]) -> dict[int, Found]:
    return by_iteration((entry.iteration, entry.figures) for entry in entries if entry.state == "done")


def _planned(ledger: Ledger, plan: Plan, iteration: int, stage: Stage) -> Job | None:
    """A stage's job; what it is to be made from may not be here (any more), which `status` has to tell."""
    try:
        return plan.job(iteration, stage)
    except Exception as error:
        told = str(error) if isinstance(error, SelfplayError) else f"{type(error).__name__}: {error}"
        _stop(ledger.folder.parent, f"iteration {iteration}, {stage} cannot begin: {told}", False)
        raise


def _is_done(ledger: Ledger, job: Job, say: Say) -> bool:
    """Whether a stage is there and unchanged; what changed is said."""
    entry = ledger.entry(job.iteration, job.stage)
    changed = ledger.changed(job.iteration, job.stage, job.made_from)
    if changed:
        why = [c.partition(":")[0] + " has other content" if c.startswith("inputs.") else c for c in changed]
        say(f"{_name(job)}: made again, the old one is put aside, since {'; '.join(why)}")
    if entry is None or changed or entry.state not in ("done", "stale") or not job.output.exists():
        return False
    if entry.state == "stale":
        entry.state = "done"
        ledger.write(entry)
    say(f"{_name(job)}: done before")
    return True


def _run(ledger: Ledger, job: Job, say: Say) -> None:
    """Finish or do one stage, and keep the ledger."""
    before = ledger.entry(job.iteration, job.stage)
    made_from = as_written(job.made_from)
    entry = Entry(job.iteration, job.stage, made_from, outputs={job.output.name: str(job.output)})
    ledger.outdate(job.iteration, job.stage)
    if before is None or before.made_from != made_from:
        _put_aside(job, {} if before is None else before.made_from)
    elif before.state not in ("done", "stale"):
        entry.before = before.before if before.seconds is None else before.seconds
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
        if _NO_ROOM in str(error) and not isinstance(error, SelfplayError):  # libraries have errors of their own for it
            entry.state, entry.error = "failed", f"{error}; make room, and the same command goes on"
            raise SelfplayError(f"{_name(job)}: {entry.error}") from error
        told = str(error) if isinstance(error, SelfplayError) else f"{type(error).__name__}: {error}"
        entry.state, entry.error = "failed", told
        raise
    finally:
        entry.ended = time.time()
        _keep(ledger, entry, say)
        say(f"{_name(job)}: {_told(entry)}")
        release_gpu()


def _told(entry: Entry) -> str:
    """How a stage ended: its time, and figures or what is wrong."""
    took = timedelta(seconds=round(entry.seconds or 0))
    if entry.state != "done":
        return f"{entry.state} after {took}: {entry.error}"
    values = by_iteration([(entry.iteration, entry.figures)])[entry.iteration]
    return f"done in {took}: " + ", ".join(f"{name} {value}" for name, value in list(values.items())[:_FIGURES])


def _keep(ledger: Ledger, entry: Entry, say: Say) -> None:
    """Write an entry; on a disk that is full, what broke the stage must not be hidden by this."""
    try:
        ledger.write(entry)
    except OSError as error:
        if entry.state == "done":
            raise
        say(f"{ledger.folder}: cannot be written either ({error}); `status` will call the stage interrupted")


def _name(job: Job) -> str:
    return f"iteration {job.iteration}, {job.stage}"


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _put_aside(job: Job, before: Mapping[str, Any]) -> None:
    """Keep what another making left, and the reports beside it, under other names; what is still good stays."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06d}"
    for path in sorted(job.output.parent.glob(f"{job.output.name}*")):
        if path == job.output or (path.name.startswith(f"{job.output.name}.") and ".aside-" not in path.name):
            aside = path.rename(path.with_name(f"{path.name}.aside-{stamp}"))
            for name in job.lasts(before) if path == job.output else ():
                if (aside / name).exists():
                    job.output.mkdir(exist_ok=True)
                    (aside / name).rename(job.output / name)
