"""The memory estimate of `selfplay train --dry-run` against what a process really takes, for every ZeRO stage on a CPU.

    python -m bench.speed.memory            # about a quarter of an hour on 2 cores

Measured is the largest resident memory of a process that trains the embedded base, less that of one that trains a model
of next to nothing in the same way: what remains is the model's. The estimate is made before the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from selfplay.train.config import TrainConfig
from selfplay.train.roles import BASE
from selfplay.train.run import with_base_folder

STEPS = 4
NOTHING = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1}
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
    values: dict[str, Any] = {
        "role": "user",
        "template": "nano",
        "data": {"datasets": ["sample"], "held_out": 0.1},
        "optim": {"max_steps": STEPS, "max_tokens_per_batch": 6144, "precision": precision},
        "processes": processes,
        "zero": zero,
        "offload": offload,
        "eval_steps": STEPS,
    }
    estimated, peak = run({**values, "base": "nano"})
    values["optim"] = {**values["optim"], "max_tokens_per_batch": 64}
    values["data"] = {**values["data"], "max_tokens": 64}
    _, floor = run({**values, "scratch": {"vocab_size": 400, **NOTHING}})
    return estimated, peak - floor


def run(values: dict[str, Any]) -> tuple[float, float]:
    """Estimate of the model's memory, and the largest memory of the first process, libraries and all."""
    from selfplay.train.plan import estimate_training
    from selfplay.train.prepare import prepare_inputs, write_prepared

    with tempfile.TemporaryDirectory() as name:
        gathered = prepare_inputs(
            with_base_folder(TrainConfig.model_validate({**values, "output_dir": f"{name}/out"})),
            BASE,
            lambda line: None,
        )
        folder = Path(name) / "out/checkpoints"
        write_prepared(gathered, folder)
        processes = str(values["processes"])
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(max(1, 2 // values["processes"]))}
        subprocess.run(
            [*command, "-m", "bench.speed.memory", str(folder)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return estimate_training(gathered).memory.total, json.loads((folder / "peak.json").read_text())


def process(folder: Path) -> None:
    """Train in this process and leave its peak (the first process does)."""
    import deepspeed

    from selfplay.train.launch.malloc import tune_malloc
    from selfplay.train.launch.worker import leave
    from selfplay.train.methods.sft import make_trainer
    from selfplay.train.prepare import read_prepared

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    tune_malloc()
    trainer = make_trainer(read_prepared(folder), folder, lambda line: None)
    trainer.train()
    if int(os.environ.get("RANK", "0")) == 0:
        (folder / "peak.json").write_text(json.dumps(_resident("VmHWM")))
    leave(0)


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        process(Path(sys.argv[1]))
    else:
        main()
