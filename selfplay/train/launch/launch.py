"""Launcher of training processes on this machine, by torch's elastic launcher; it reports what went wrong in them.

It knows nothing of the training itself: the processes run `selfplay.train.launch.worker`, which reads the prepared run
from a folder and leaves its error there.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from selfplay.errors import SelfplayError
from selfplay.train.config import TrainConfig
from selfplay.train.launch.kernels import drop_dead_locks


def launch_line(config: TrainConfig, folder: Path, checkpoint: str | None = None) -> list[str]:
    """The torchrun command line that is equivalent to `launch`, for a run that is prepared."""
    line = ["torchrun", "--standalone", "--nproc-per-node", str(config.processes), "-m", "selfplay.train.launch.worker"]
    return [*line, str(folder), *(["--checkpoint", checkpoint] if checkpoint else [])]


def launch(config: TrainConfig, folder: Path, checkpoint: str | None) -> None:
    """Train in launched processes; the first one prints, the others write to `logs/`.

    Raises:
        SelfplayError: training failed; the message is that of the process.
        KeyboardInterrupt: the run was stopped by Ctrl-C; it continues with --resume.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from selfplay.train.launch.worker import ERROR
    from selfplay.train.methods.callbacks import memory_knobs

    report = folder / ERROR
    report.unlink(missing_ok=True)
    drop_dead_locks()
    # The cores are divided over the processes; a number of threads that the user has set wins (below).
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": str(_cores() // config.processes or 1)}
    failed = ""
    with warnings.catch_warnings(), _environment({**threads, **os.environ}):
        warnings.simplefilter("ignore", ResourceWarning)  # the launcher leaves its log files open
        try:
            # [4:] leaves out torchrun and its options: `_run` sets them itself.
            _run(config.processes, folder / "logs", launch_line(config, folder, checkpoint)[4:])
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            failed = (
                f"training process {rank} ended with status {failure.exitcode}; its output is above or in {folder}/logs"
            )
            if failure.exitcode == -signal.SIGKILL:
                failed += f"; the system may have ended it for its memory: {memory_knobs(config)}"
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            failed = f"stopped by {error.sigval.name}"
        gc.collect()
    if failed:
        raise SelfplayError(report.read_text(encoding="utf-8") if report.exists() else f"{failed}; go on with --resume")


def _cores() -> int:
    """Number of cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started in this context, and restore them after it."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(processes: int, logs: Path, arguments: list[str]) -> None:
    """Start the processes and wait for all of them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs.mkdir(exist_ok=True)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its summary repeats our error
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=uuid4().hex,
        max_restarts=0,  # a failed run continues with --resume, not by itself
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=dict.fromkeys(range(1, processes), Std.ALL)),
    )
    elastic_launch(config, sys.executable)(*arguments)
