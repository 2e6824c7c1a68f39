"""The memory estimate of `selfplay train --dry-run` against what a process really takes, for every ZeRO stage on a CPU.

    python -m bench.speed.memory            # about ten minutes on 2 cores

Measured is the largest resident memory of a process while it trains the embedded base, above what it was with every
library loaded and no model. Both precisions, one and two processes; the estimate is printed before the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from selfplay.train.config import TrainConfig
from selfplay.training import located

STEPS = 4
CASES = [
    (processes, zero, offload, precision)
    for precision in ("float32", "bfloat16")
    for processes, zero, offload in (
        (1, 0, False),
        (2, 0, False),
        (2, 1, False),
        (2, 2, False),
        (2, 3, False),
        (2, 3, True),
    )
]


def main() -> None:
    """Run every case and print the table."""
    print("| precision | processes | ZeRO | offload | estimated MiB | measured MiB | estimated ÷ measured |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for processes, zero, offload, precision in CASES:
        estimated, measured = compare(processes, zero, offload, precision)
        print(
            f"| {precision} | {processes} | {zero} | {'yes' if offload else 'no'} | {estimated / 2**20:,.0f} | "
            f"{measured / 2**20:,.0f} | {estimated / measured:.2f} |",
            flush=True,
        )


def compare(processes: int, zero: int, offload: bool, precision: str) -> tuple[float, float]:
    """Estimated and measured bytes of one process."""
    from selfplay.train.estimate import estimate
    from selfplay.train.prepare import gather, write

    with tempfile.TemporaryDirectory() as name:
        values = {
            "role": "user",
            "base": "nano",
            "data": {"datasets": ["sample"], "held_out": 0.1},
            "optim": {"max_steps": STEPS, "batch_tokens": 6144, "precision": precision},
            "processes": processes,
            "zero": zero,
            "offload": offload,
            "eval_steps": STEPS,
            "out": f"{name}/out",
        }
        gathered = gather(located(TrainConfig.model_validate(values)), lambda line: None)
        folder = Path(name) / "out/checkpoints"
        write(gathered, folder)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(max(1, 2 // processes))}
        subprocess.run(
            [*command, "-m", "bench.speed.memory", str(folder)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        measured = json.loads((folder / "peak.json").read_text())
        return estimate(gathered).memory.total, measured


def process(folder: Path) -> None:
    """Train in this process and leave its peak (the first process does)."""
    import deepspeed
    import torch

    from selfplay.train.memory import keep_freed_memory
    from selfplay.train.prepare import read
    from selfplay.train.work import make_trainer

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    prepared = read(folder)
    (torch.randn(512, 512) @ torch.randn(512, 512)).sum()  # thread pools
    keep_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _resident("VmRSS")
    trainer = make_trainer(prepared, folder, lambda line: None)
    trainer.train()
    if int(os.environ.get("RANK", "0")) == 0:
        (folder / "peak.json").write_text(json.dumps(_resident("VmHWM") - before))
    torch.distributed.destroy_process_group()


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        process(Path(sys.argv[1]))
    else:
        main()
