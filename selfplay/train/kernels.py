"""Builds what DeepSpeed compiles at first use on a CPU, so that the first run need not.

    python -m selfplay.train.kernels

Needs g++ and ninja; takes a minute once, then the results lie in torch's extension cache.
"""

from __future__ import annotations

import os

from selfplay.train.environment import tools_on_path


def build() -> list[str]:
    """Compile, or find compiled, the collectives over shared memory and the host's AdamW."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    tools_on_path()
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder

    builders = (ShareMemCommBuilder(), CPUAdamBuilder())
    for builder in builders:
        builder.load(verbose=False)
    return [builder.name for builder in builders]


if __name__ == "__main__":
    print("built:", ", ".join(build()))
