"""Worker: one launched process of a training run, which reads the prepared run and trains.

torchrun --standalone --nproc-per-node N -m selfplay.train.launch.worker OUT/checkpoints [--checkpoint FOLDER]

Trap: heavy imports come inside `main`, after the process is set to end with its launcher and warnings are silenced.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import signal
import sys
import traceback
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from selfplay.errors import SelfplayError
from selfplay.train.launch.environment import add_venv_to_path, quiet

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
ERROR = "error.txt"
"""File with the error message, for the process that launched this one."""


def main() -> int:
    """Train according to the command line. Returns the exit status, 1 where the file `ERROR` gives the reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    _die_with_parent()
    quiet()
    add_venv_to_path()
    warnings.filterwarnings("ignore", category=FutureWarning)  # DeepSpeed causes them at every step
    _join()
    from selfplay.train.methods.sft import train_process
    from selfplay.train.prepare import read_prepared

    try:
        train_process(read_prepared(arguments.folder), arguments.folder, arguments.checkpoint, _say)
    except SelfplayError as error:
        # The first process has precedence; the error of another one counts only where there is none yet.
        if _rank() == 0 or not (arguments.folder / ERROR).exists():
            (arguments.folder / ERROR).write_text(str(error), encoding="utf-8")
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End the process at once, without destructors.

    Destructors of the communication libraries (gloo on CPUs) were seen to wait for processes that had already left, so
    os._exit skips them. It also skips the flushing of files, which is why that is done here.
    """
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _join() -> None:
    """Join the process group before a model is loaded, because ZeRO-3 splits weights while it loads them."""
    import torch

    if torch.cuda.is_available():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with redirect_stdout(io.StringIO()):  # DeepSpeed prints that it built kernels, also where they were in the cache
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its launcher dies; nothing else would end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _say(line: str) -> None:
    if _rank() == 0:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)
