"""Start model of a training run: it is loaded or initialised, resized to the tokenizer, and given its adapters.

It knows nothing of data or of the trained role. Trap: under ZeRO-3 the training arguments have to exist before these
functions are called, so that the weights are split while they are loaded.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from selfplay.errors import ModelError
from selfplay.train.architecture import lora_config
from selfplay.train.config import Lora, TrainConfig
from selfplay.train.launch.environment import require
from selfplay.train.scratch import random_model


def start_model(config: TrainConfig, tokenizer: Any, new_tokens: list[int]) -> Any:
    """Build the model of a recipe, ready for the trainer.

    Args:
        new_tokens: token ids that are new to the base.

    Raises:
        ModelError: there is no such model, or a package that the recipe needs is not installed.
    """
    torch.manual_seed(config.optim.seed)  # the same new rows and adapters in every layout
    if config.scratch is not None:
        model: Any = random_model(config.scratch, tokenizer, config.optim.seed)
        model.set_attn_implementation(attention(config))
    else:
        model = _loaded(config)
    if len(tokenizer) > int(model.config.vocab_size):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    if config.lora is not None:
        torch.manual_seed(config.optim.seed)  # again: the steps above draw a varying number of random values
        model = _adapted(model, config.lora, new_tokens, config.layout.zero == 3)
    if config.compute.compile:
        compile_layers(model)
    return model


def load_base(name: str, **options: Any) -> Any:
    """Load a causal language model from a folder or the hub; code that comes with a model is never run.

    Raises:
        ModelError: the model does not exist or cannot be read.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: no model that can be loaded ({str(error).splitlines()[0]})") from error


def _loaded(config: TrainConfig) -> Any:
    """The base of a recipe, in 4 bits where the recipe asks for it."""
    options: dict[str, Any] = {"dtype": weights_dtype(config), "attn_implementation": attention(config)}
    if config.lora is not None and config.lora.load_in_4bit:
        from transformers import BitsAndBytesConfig

        require("bitsandbytes", "lora.load_in_4bit")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if config.optim.precision == "bfloat16" else torch.float32,
        )
    return load_base(str(config.base), **options)


def weights_dtype(config: TrainConfig) -> torch.dtype:
    """The type of the weights in memory.

    Weights that plain training updates stay in float32: small updates would round away in bfloat16. Frozen weights need
    no more than the type they compute in, and DeepSpeed keeps a float32 copy of its own.
    """
    frozen = config.lora is not None or config.layout.zero > 0
    return torch.bfloat16 if frozen and config.optim.precision == "bfloat16" else torch.float32


def attention(config: TrainConfig) -> str:
    """Choose the implementation of attention; packed rows are fastest with FlashAttention."""
    if config.compute.attention != "auto":
        return config.compute.attention
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash and config.optim.precision == "bfloat16" else "sdpa"


def _adapted(model: Any, lora: Lora, new_tokens: list[int], split: bool) -> Any:
    """Add adapters to every target module, and train the embeddings of new tokens with them."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    if lora.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # Both embedding and head: without its row in the head a new token could be read but never generated.
    trained = dict.fromkeys(_vocabulary_modules(model), new_tokens) if new_tokens else None
    # PEFT would turn bfloat16 adapters into float32, but ZeRO-3 gathers weights of one type only.
    return get_peft_model(model, lora_config(lora, trained), autocast_adapter_dtype=not split)


def _vocabulary_modules(model: Any) -> list[str]:
    """Module names of the embedding and, where it is not the same matrix, of the head."""
    wanted = [model.get_input_embeddings()]
    if not model.config.tie_word_embeddings:
        wanted.append(model.get_output_embeddings())
    return [str(name).rsplit(".", 1)[-1] for name, module in model.named_modules() if any(module is w for w in wanted)]


def compile_layers(model: Any) -> None:
    """Apply torch.compile to each layer separately: one graph serves all layers, and lengths stay dynamic."""
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            for layer in module:
                layer.compile(dynamic=True)
