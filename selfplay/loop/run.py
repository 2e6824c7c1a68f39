"""`selfplay loop run`: the stages of every iteration; completed stages are skipped, interrupted ones resume.

A loop's folder holds `loop.yaml` (the recipe it last ran with), `ledger/` (a file a stage), a folder an iteration, and
`stopped.json` (why it is over before its last iteration).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from selfplay.errors import SelfplayError
from selfplay.files import replacing
from selfplay.generate.run import Watch, no_events
from selfplay.loop.config import STAGES, LoopConfig, Stage
from selfplay.loop.health import alarms, check_limits, unchecked
from selfplay.loop.inputs import with_data
from selfplay.loop.ledger import Ledger, StageRecord, as_written, locked_loop
from selfplay.loop.metrics import by_iteration
from selfplay.loop.plan import LoopPlan
from selfplay.loop.stages.stage import Job
from selfplay.loop.status import RECIPE, STOPPED, LoopState, loop_status, metrics_of_records
from selfplay.loop.stopping import out_of_budget, spent, without_gain

Say = Callable[[str], None]
_NO_ROOM = "No space left on device"
_FIGURES = 4
"""Figures that are said when a stage is done; `status` and the report have the others."""


def loop(
    config: LoopConfig,
    out: str | Path,
    say: Say = print,
    watch: Watch = lambda: nullcontext(no_events),
    make_plan: Callable[[LoopConfig, Path, Say, Watch], LoopPlan] = LoopPlan,
) -> LoopState:
    """Run every iteration; a stage that is done and unchanged is skipped.

    Args:
        watch: shows how generating goes, while it goes.
        make_plan: what makes the jobs; another one replaces the stages.

    Raises:
        SelfplayError: a stage failed (the ledger says which, the same command goes on), or another loop runs there.
    """
    folder = Path(out)
    with locked_loop(folder):
        try:
            _loop(config, folder, say, watch, make_plan)
        except OSError as error:
            raise SelfplayError(f"{folder}: {error}; once that is put right, the same command goes on") from error
    return loop_status(folder)


def check_loop(config: LoopConfig, out: str | Path, say: Say = print) -> None:
    """Read every recipe and find every model, dataset and question set of a loop; start and write nothing.

    Raises:
        SelfplayError: one of them cannot be used.
    """
    LoopPlan(config, Path(out), say).check()
    stages = [stage for stage in STAGES if stage != "simulator" or config.simulator.train != "never"]
    say(f"{config.iterations} iterations of {', '.join(stages)}, and the bench of the first assistant before them")


def _loop(
    config: LoopConfig,
    folder: Path,
    say: Say,
    watch: Watch,
    make_plan: Callable[[LoopConfig, Path, Say, Watch], LoopPlan],
) -> None:
    ledger = Ledger(folder)
    config = with_data(config, folder, bool(ledger.entries()), say)
    plan = make_plan(config, folder, say, watch)
    plan.check()
    _write(folder / RECIPE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    (folder / STOPPED).unlink(missing_ok=True)
    over = _iterate(config, ledger, plan, say)
    if over is not None:
        _stop(folder, *over)
        say(f"the loop stops: {over[0]}; with looser rules or limits the same command goes on")


def _stop(folder: Path, reason: str, alarm: bool) -> None:
    _write(folder / STOPPED, json.dumps({"reason": reason, "alarm": alarm}) + "\n")


def _iterate(config: LoopConfig, ledger: Ledger, plan: LoopPlan, say: Say) -> tuple[str, bool] | None:
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
        found = metrics_of_records(entry for entry in ledger.entries() if entry.iteration <= iteration)
        checked = check_limits(found, config.health)
        for figure in unchecked(found, config.health, iteration):
            say(f"WARNING, iteration {iteration}: {figure} was not measured, its limit cannot be looked at")
        for alarm in alarms(checked, iteration):
            say(f"{'ALARM' if alarm.limit.action == 'stop' else 'WARNING'}, iteration {iteration}: {alarm}")
            if alarm.limit.action == "stop":
                return f"collapse alarm in iteration {iteration}: {alarm}", True
        if iteration < config.iterations and (reason := without_gain(config.stop, found, iteration)) is not None:
            return reason, False
    return None


def _planned(ledger: Ledger, plan: LoopPlan, iteration: int, stage: Stage) -> Job | None:
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
    changed = ledger.changed(job.iteration, job.stage, job.identity)
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
    identity = as_written(job.identity)
    entry = StageRecord(job.iteration, job.stage, identity, outputs={job.output.name: str(job.output)})
    ledger.outdate(job.iteration, job.stage)
    if before is None or before.identity != identity:
        _put_aside(job, {} if before is None else before.identity)
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


def _told(entry: StageRecord) -> str:
    """How a stage ended: its time, and figures or what is wrong."""
    took = timedelta(seconds=round(entry.seconds or 0))
    if entry.state != "done":
        return f"{entry.state} after {took}: {entry.error}"
    values = by_iteration([(entry.iteration, entry.figures)])[entry.iteration]
    return f"done in {took}: " + ", ".join(f"{name} {value}" for name, value in list(values.items())[:_FIGURES])


def _keep(ledger: Ledger, entry: StageRecord, say: Say) -> None:
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


def release_gpu() -> None:
    """Give back what this process holds of a GPU: the next stage's engines ask for nearly all of it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        import gc

        gc.collect()
        torch.cuda.empty_cache()
