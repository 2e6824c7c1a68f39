"""The work of one process: model and trainer from what was prepared, training, saving."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig

from selfplay.train.average import average_with_base
from selfplay.train.batches import Composition, plan_batches
from selfplay.train.config import TrainConfig
from selfplay.train.launch.deepspeed_config import deepspeed_config
from selfplay.train.launch.malloc import tune_malloc
from selfplay.train.methods.callbacks import Watch, memory_advice
from selfplay.train.methods.trainer import RoleTrainer, lengths_of
from selfplay.train.model import start_model
from selfplay.train.prepare import PreparedTraining
from selfplay.train.saving import save_model


def train_process(prepared: PreparedTraining, folder: Path, checkpoint: str | None, say: Callable[[str], None]) -> None:
    """Train, evaluate, save.

    Raises:
        SelfplayError: the model cannot be loaded, the loss is no number, or memory is out.
    """
    config = prepared.config
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it aligns and how it resizes is what was asked for
    warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")  # so are the checkpoints of adapters
    with memory_advice(config):
        trainer = make_trainer(prepared, folder, say)
        if trainer.args.use_cpu:
            tune_malloc()
        trainer.train(resume_from_checkpoint=checkpoint)
        if config.optim.average_with_base:
            average_with_base(trainer, config)
        loss = _final_loss(trainer, moved=config.optim.average_with_base > 0)
        save_model(prepared, trainer, loss, folder)


def _final_loss(trainer: RoleTrainer, moved: bool) -> float:
    """The held-out loss of the weights that are saved; known from the last step, unless they have `moved` since."""
    last = trainer.state.log_history[-2:]
    known = [
        entry["eval_loss"] for entry in last if entry.get("step") == trainer.state.global_step and "eval_loss" in entry
    ]
    moved = moved or trainer.args.load_best_model_at_end
    return float(known[-1]) if known and not moved else float(trainer.evaluate()["eval_loss"])


def make_trainer(prepared: PreparedTraining, folder: Path, say: Callable[[str], None]) -> RoleTrainer:
    """The trainer of a run, its model loaded."""
    config = prepared.config
    batches, steps = plan_batches(config, lengths_of(prepared.train))
    # The settings come first: with ZeRO-3 they decide how the model is loaded.
    arguments = training_arguments(config, folder, batches.accumulate * config.optim.gradient_accumulation_steps, steps)
    model = start_model(config, prepared.tokenizer, prepared.facts["new_tokens"])
    return RoleTrainer(
        model=model,
        args=arguments,
        batches=batches,
        evaluation=Composition(config.optim.max_tokens_per_batch, config.processes, packed=config.compute.packing),
        watch=Watch(say),
        train_dataset=prepared.train,
        eval_dataset=prepared.held_out,
        processing_class=prepared.tokenizer,
        callbacks=[EarlyStoppingCallback(config.optim.patience)] if config.optim.patience else [],
        optimizer_cls_and_kwargs=_host_optimizer(config) if config.layout.offload else None,
    )


def _host_optimizer(config: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """DeepSpeed's AdamW for states in the host's memory, several times as fast there as torch's."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optim = config.optim
    return DeepSpeedCPUAdam, {"lr": optim.learning_rate, "betas": (0.9, optim.beta2), "adamw_mode": True}


def training_arguments(config: TrainConfig, folder: Path, accumulate: int, steps: int) -> SFTConfig:
    """The recipe in Transformers' words."""
    optim = config.optim
    if "tensorboard" in config.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(config.output_dir) / "tensorboard")
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=optim.epochs,
        max_steps=steps,
        learning_rate=optim.learning_rate,
        **_schedule(config),
        warmup_steps=optim.warmup_steps,
        weight_decay=optim.weight_decay,
        adam_beta2=optim.beta2,
        max_grad_norm=optim.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=optim.precision == "bfloat16",
        seed=optim.seed,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # otherwise a NaN loss is logged as the average before it
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_steps=config.eval_steps if optim.patience else config.save_steps,
        save_total_limit=2,
        load_best_model_at_end=optim.patience is not None,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        gradient_checkpointing=config.compute.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": config.layout.zero == 3},
        use_liger_kernel=config.compute.liger,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed_config(config, accumulate),
        accelerator_config={"even_batches": False},
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
    )


def _schedule(config: TrainConfig) -> dict[str, Any]:
    if config.optim.schedule == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": config.optim.min_lr_ratio},
        }
    return {"lr_scheduler_type": {"linear": "linear", "constant": "constant_with_warmup"}[config.optim.schedule]}
