"""Supervised fine-tuning in one process: it builds model and trainer from the prepared run, trains, and saves.

The data, tokenizer and template come from `selfplay.train.prepare`; nothing is rendered here.

Trap: under ZeRO-3 the order matters. The training arguments have to exist before the model is loaded.
"""

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
    """Train, evaluate and save the model.

    Args:
        folder: the prepared run, and the folder of its checkpoints.
        checkpoint: the checkpoint to resume from; None starts anew.

    Raises:
        SelfplayError: the model cannot be loaded, the loss is not finite, or memory ran out.
    """
    config = prepared.config
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # its warnings on aligned tokens and resized embeddings are intended
    warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")  # intended as well
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
    """The held-out loss of the saved weights.

    It is taken from the log of the last step, or evaluated anew where the weights have `moved` since: by averaging with
    the base, or because the best checkpoint was loaded.
    """
    last = trainer.state.log_history[-2:]
    evaluations = [
        entry["eval_loss"] for entry in last if entry.get("step") == trainer.state.global_step and "eval_loss" in entry
    ]
    moved = moved or trainer.args.load_best_model_at_end
    return float(evaluations[-1]) if evaluations and not moved else float(trainer.evaluate()["eval_loss"])


def make_trainer(prepared: PreparedTraining, folder: Path, say: Callable[[str], None]) -> RoleTrainer:
    """Build the trainer of a run and load its model."""
    config = prepared.config
    batches, steps = plan_batches(config, lengths_of(prepared.train))
    # Arguments before the model: creating them switches ZeRO-3 on, and only then is the model split while it loads.
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
    """DeepSpeed's AdamW for optimiser states in the host's memory, where it is several times as fast as torch's."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optim = config.optim
    return DeepSpeedCPUAdam, {"lr": optim.learning_rate, "betas": (0.9, optim.beta2), "adamw_mode": True}


def training_arguments(config: TrainConfig, folder: Path, accumulate: int, steps: int) -> SFTConfig:
    """Translate the recipe to the arguments of the trainer.

    Args:
        accumulate: batches per optimiser step and device.
        steps: optimiser steps of the run.
    """
    optim = config.optim
    if "tensorboard" in config.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(config.output_dir) / "tensorboard")
    return SFTConfig(
        output_dir=str(folder),
        # The batch sampler composes whole batches, so the sizes here are nominal.
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
        logging_nan_inf_filter=False,  # otherwise a NaN loss is logged as the earlier average, and `Watch` misses it
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        # With load_best_model_at_end every saved checkpoint needs an evaluation of the same step.
        save_steps=config.eval_steps if optim.patience else config.save_steps,
        save_total_limit=2,
        load_best_model_at_end=optim.patience is not None,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        gradient_checkpointing=config.compute.gradient_checkpointing,
        # ZeRO-3 gathers and frees weights, which only reentrant checkpoints allow.
        gradient_checkpointing_kwargs={"use_reentrant": config.layout.zero == 3},
        use_liger_kernel=config.compute.liger,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed_config(config, accumulate),
        # `Batches` gives each process equally many batches; its batches have no fixed size that accelerate could even.
        accelerator_config={"even_batches": False},
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
    )


def _schedule(config: TrainConfig) -> dict[str, Any]:
    """The arguments of the learning-rate schedule."""
    if config.optim.schedule == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": config.optim.min_lr_ratio},
        }
    return {"lr_scheduler_type": {"linear": "linear", "constant": "constant_with_warmup"}[config.optim.schedule]}
