"""Builds what DeepSpeed compiles at first use on a CPU, so that the first run need not.

    python -m selfplay.train.launch.kernels

Needs g++ and ninja; takes a minute once, then the results lie in torch's extension cache.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from selfplay.train.launch.environment import add_venv_to_path

_QUIET = 5.0
"""Seconds a build may be between taking its lock and starting its compiler."""


def build() -> list[str]:
    """Compile, or find compiled, the collectives over shared memory and the host's AdamW."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    add_venv_to_path()
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder

    drop_dead_locks()
    builders = (ShareMemCommBuilder(), CPUAdamBuilder())
    for builder in builders:
        builder.load(verbose=False)
    return [builder.name for builder in builders]


def drop_dead_locks(quiet: float = _QUIET) -> list[Path]:
    """Remove the locks that killed builds left in torch's extension cache; torch would wait for them for ever.

    Compilers work in the folder they build in, so a lock in a folder where no process works belongs to none.

    Returns:
        The locks removed.
    """
    if not any(_idle(lock) for lock in _locks()):
        return []
    time.sleep(quiet)
    dead = [lock for lock in _locks() if _idle(lock)]
    for lock in dead:
        lock.unlink(missing_ok=True)
    return dead


def _locks() -> list[Path]:
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    return [*root.glob("*/lock"), *root.glob("*/*/lock")]


def _idle(lock: Path) -> bool:
    import psutil

    folder = str(lock.parent.resolve())
    return all(process.info["cwd"] != folder for process in psutil.process_iter(["cwd"]))


if __name__ == "__main__":
    print("built:", ", ".join(build()))
