"""Build of DeepSpeed's CPU kernels ahead of time, so that the first training run does not have to compile them.

    python -m selfplay.train.launch.kernels

It needs g++ and ninja and takes a minute once; the results are stored in torch's extension cache.

Trap: torch waits for a lock file without a time limit, also for the lock of a build that was killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from selfplay.train.launch.environment import add_venv_to_path

_QUIET = 5.0
"""Seconds that a live build may take between its lock and the start of its compiler."""


def build() -> list[str]:
    """Compile the shared-memory collectives and the CPU AdamW, or load them from the cache.

    Returns:
        The names of the kernels.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    add_venv_to_path()
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder

    drop_dead_locks()
    builders = (ShareMemCommBuilder(), CPUAdamBuilder())
    for builder in builders:
        builder.load(verbose=False)
    return [builder.name for builder in builders]


def drop_dead_locks(quiet: float = _QUIET) -> list[Path]:
    """Remove the locks that killed builds left in torch's extension cache; torch would wait for them forever.

    A compiler's working directory is the folder that it builds in, so a lock in a folder that is no process's working
    directory belongs to no build.

    Returns:
        The locks removed.
    """
    if not any(_idle(lock) for lock in _locks()):
        return []
    time.sleep(quiet)  # a build that has just taken its lock has no compiler running yet
    dead = [lock for lock in _locks() if _idle(lock)]
    for lock in dead:
        lock.unlink(missing_ok=True)
    return dead


def _locks() -> list[Path]:
    """The lock files in torch's extension cache."""
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    return [*root.glob("*/lock"), *root.glob("*/*/lock")]


def _idle(lock: Path) -> bool:
    """Whether no process works in the folder of a lock."""
    import psutil

    folder = str(lock.parent.resolve())
    return all(process.info["cwd"] != folder for process in psutil.process_iter(["cwd"]))


if __name__ == "__main__":
    print("built:", ", ".join(build()))
