"""What can be known before anything heavy is loaded: the machine, installed packages, the base's architecture."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

from selfplay.errors import ConfigError, ModelError
from selfplay.train.config import TrainConfig


def quiet() -> None:
    """Keep libraries from telling what is meant to be so: no GPU here, no optional kernels."""
    for name in ("bitsandbytes", "accelerate.accelerator"):
        logging.getLogger(name).setLevel(logging.ERROR)


def add_venv_to_path() -> None:
    """Let DeepSpeed find the ninja that was installed with it, whatever PATH the command was started with."""
    own = str(Path(sys.executable).parent)
    if own not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, (own, os.environ.get("PATH"))))


def check_environment(config: TrainConfig) -> None:
    """Refuse what this machine cannot do before anything is loaded.

    Raises:
        ModelError: a package or the base is missing; a name like organisation/model may still be one of the hub.
        ConfigError: more processes than GPUs, or kernels that need a GPU.
    """
    base = config.base
    if base is not None and not (Path(base) / "config.json").exists() and (Path(base).is_dir() or base.count("/") != 1):
        found = "config.json is missing" if Path(base).is_dir() else "no such folder"
        raise ModelError(f"{base}: no model folder ({found}); set 'base' to a trained model")
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
    """Whether a process would see more than the one GPU it is meant for, were it not launched for it."""
    import torch

    return torch.cuda.device_count() > 1


def require(package: str, setting: str) -> None:
    """Check that an optional package is there.

    Raises:
        ModelError: it is not; the message says how to get it.
    """
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ModelError(f"{setting} needs {package}; `pip install {package}`, or leave the setting out")
