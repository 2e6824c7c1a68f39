"""Model architecture without weights: its configuration, its LoRA configuration, and its parameter counts.

It loads no weights, so that bad input is found in seconds.
"""

from __future__ import annotations

from typing import Any

from selfplay.errors import ConfigError, ModelError
from selfplay.train.config import Lora, TrainConfig
from selfplay.train.scratch import scratch_shape


def model_shape(config: TrainConfig, vocabulary: int) -> Any:
    """Load or build the architecture's configuration, without any weights.

    Raises:
        ModelError: the base has no readable configuration, or is a model of more than text.
    """
    from transformers import AutoConfig

    if config.scratch is not None:
        return scratch_shape(config.scratch, vocabulary)
    try:
        shape = AutoConfig.from_pretrained(str(config.base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config.base}: no model that can be read ({str(error).splitlines()[0]}); set 'base' to a folder or to a "
            "name on the hub"
        ) from error
    if shape.get_text_config() is not shape:
        raise ModelError(f"{config.base}: a model of more than text ({shape.model_type}); name a base for text alone")
    return shape


def lora_config(lora: Lora, tokens: dict[str, list[int]] | None) -> Any:
    """Build the PEFT configuration of the adapters.

    Args:
        tokens: embedding rows that are trained with the adapters, by the name of the module.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        trainable_token_indices=tokens,
        task_type="CAUSAL_LM",
    )


def count_parameters(config: TrainConfig, shape: Any, vocabulary: int, new_tokens: int) -> tuple[int, int]:
    """Count all parameters and the trained ones, on the meta device, which allocates no weights.

    Raises:
        ConfigError: the adapters fit no module of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    shape = type(shape).from_dict({**shape.to_dict(), "vocab_size": max(vocabulary, shape.vocab_size)})
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
        model.tie_weights()  # before counting, so that an embedding that is also the head counts once
        total = sum(parameter.numel() for parameter in model.parameters())
        if config.lora is None:
            return total, total
        from peft import get_peft_model

        try:
            adapted: Any = get_peft_model(model, lora_config(config.lora, None))
        except ValueError as error:
            raise ConfigError(f"lora.targets: {str(error).splitlines()[0]}") from error
    # Rows of new tokens are trained in the embedding and, where it is a matrix of its own, in the head.
    rows = new_tokens * int(shape.hidden_size) * (1 if shape.tie_word_embeddings else 2)
    return total, int(adapted.get_nb_trainable_parameters()[0]) + rows
