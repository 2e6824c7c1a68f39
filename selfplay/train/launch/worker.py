"""One launched process of a training run; nothing heavy is imported before it is known how to die and what not to say.

torchrun --standalone --nproc-per-node N -m selfplay.train.launch.worker OUT/checkpoints [--checkpoint FOLDER]
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
"""What went wrong, for the process that launched this one."""


def main() -> int:
    """Train as told; the exit status is 1 where `ERROR` says why."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint")
    given = parser.parse_args()
    _die_with_parent()
    quiet()
    add_venv_to_path()
    warnings.filterwarnings("ignore", category=FutureWarning)  # DeepSpeed's calls of torch, every step anew
    _join()
    from selfplay.train.methods.sft import train_process
    from selfplay.train.prepare import read_prepared

    try:
        train_process(read_prepared(given.folder), given.folder, given.checkpoint, _say)
    except SelfplayError as error:
        if _rank() == 0 or not (given.folder / ERROR).exists():
            (given.folder / ERROR).write_text(str(error), encoding="utf-8")
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End at once. Destructors of the communication libraries were seen to wait for processes that had already left."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _join() -> None:
    """Meet the other processes before a model is loaded: ZeRO-3 splits weights while it loads them."""
    import torch

    if torch.cuda.is_available():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with redirect_stdout(io.StringIO()):  # "built successfully", although it was built long ago
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def _die_with_parent() -> None:
    """Killed with the process that launched it: nobody else would ever end this one."""
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
