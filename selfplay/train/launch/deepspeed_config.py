"""DeepSpeed configuration of a training run (ZeRO, arXiv:1910.02054; offload, arXiv:2101.06840).

It sets only what the trainer does not fill in by itself, and it does not know the model.
"""

from __future__ import annotations

from typing import Any

from selfplay.train.config import TrainConfig

BUCKET = 50_000_000
"""Maximum number of elements in a gradient bucket: large enough for fast collectives, 200 MB in float32."""
LIVE = 500_000_000
"""Maximum number of weight elements that ZeRO-3 keeps gathered."""


def deepspeed_config(config: TrainConfig, accumulate: int) -> dict[str, Any] | None:
    """Build DeepSpeed's JSON configuration, or None for a run without DeepSpeed.

    Args:
        accumulate: batches per optimiser step and device.
    """
    layout = config.layout
    if not layout.zero:
        return None
    zero: dict[str, Any] = {
        "stage": layout.zero,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET,
    }
    if layout.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if layout.zero < 3:
        zero["allgather_bucket_size"] = BUCKET
    else:
        zero |= {
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": LIVE,
            "stage3_max_reuse_distance": LIVE,
            # one consolidated model at the end and in every checkpoint; DeepSpeed's own script fails on tied embeddings
            "stage3_gather_16bit_weights_on_model_save": True,
        }
        if layout.offload:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": config.optim.precision == "bfloat16"},
        "gradient_clipping": config.optim.max_grad_norm,
        "gradient_accumulation_steps": accumulate,
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        # otherwise accelerate replaces our optimiser with its own, without our betas and weight decay
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
