"""Environment checks before training: GPUs, installed packages, and the folder of the base.

They run before any model is loaded, so that a run that cannot work fails in seconds.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

from selfplay.errors import ConfigError, ModelError
from selfplay.train.config import TrainConfig


def quiet() -> None:
    """Silence library warnings about intended conditions: no GPU, no optional kernels."""
    for name in ("bitsandbytes", "accelerate.accelerator"):
        logging.getLogger(name).setLevel(logging.ERROR)


def add_venv_to_path() -> None:
    """Put the virtual environment's scripts on PATH, so that DeepSpeed finds the ninja installed there."""
    own = str(Path(sys.executable).parent)
    if own not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, (own, os.environ.get("PATH"))))


def check_environment(config: TrainConfig) -> None:
    """Refuse a recipe that this machine cannot run, before anything is loaded.

    Raises:
        ModelError: a package or the base is missing. A name like organisation/model passes: it may be on the hub.
        ConfigError: there are more processes than GPUs, or the kernels need a GPU.
    """
    base = config.base
    if base is not None and not (Path(base) / "config.json").exists() and (Path(base).is_dir() or base.count("/") != 1):
        problem = "config.json is missing" if Path(base).is_dir() else "no such folder"
        raise ModelError(f"{base}: no model folder ({problem}); set 'base' to a trained model")
    import torch

    gpus = torch.cuda.device_count()
    if not gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before anything imports DeepSpeed, which would warn
    quiet()
    if gpus and config.processes > gpus:
        raise ConfigError(f"--processes {config.processes}: this machine has {gpus} GPU(s), one process each")
    for wanted, package, setting in (
        (config.compute.liger, "liger-kernel", "compute.liger"),
        (config.lora is not None and config.lora.load_in_4bit, "bitsandbytes", "lora.load_in_4bit"),
        ("tensorboard" in config.report_to, "tensorboard", "report: tensorboard"),
        ("wandb" in config.report_to, "wandb", "report: wandb"),
        (config.compute.attention == "flash_attention_2", "flash-attn", "compute.attention: flash_attention_2"),
    ):
        if wanted:
            require(package, setting)
    if config.compute.liger and not gpus:
        raise ConfigError("compute.liger: Liger kernels need a GPU; leave it out on a CPU")


def several_gpus() -> bool:
    """Whether the machine has several GPUs.

    A run of one process is then launched too: in this process it would see all GPUs instead of one.
    """
    import torch

    return torch.cuda.device_count() > 1


def require(package: str, setting: str) -> None:
    """Check that an optional package is installed.

    Raises:
        ModelError: it is not; the message says how to install it.
    """
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ModelError(f"{setting} needs {package}; `pip install {package}`, or leave the setting out")
