"""Settings of a training recipe: data, optimisation, adapters, layout. Reading a recipe loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from selfplay.chat.conversation import TrainedRole
from selfplay.recipe import Operational, Settings


class ScratchModel(Settings):
    """A new Llama-architecture model with a new byte-level BPE tokenizer."""

    vocab_size: int = Field(6144, ge=300)
    """Number of tokens, special tokens included."""
    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 5
    heads: int = 4
    """Attention heads; hidden_size / heads is the head size."""
    max_positions: int = 1024
    """Longest context in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchModel:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class TrainData(Settings):
    """The training data: which conversations are used, and how they are cut and held out."""

    datasets: tuple[str, ...]
    """Catalogue names, paths or hub names, each `name` or `name=weight`: how often an epoch has each conversation."""
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of each dataset's conversations that is held out of training."""
    max_tokens: int = Field(768, ge=16)
    """Longer conversations are cut on the right; the model does not see the ending of a cut one."""
    strict: bool = False
    """Stop at the first bad row instead of counting and skipping it."""
    eval_conversations: int = Field(400, ge=1)
    """Number of held-out conversations on which the loss is evaluated during training."""


class Optimisation(Settings):
    """Optimisation: learning rate, schedule, batch sizes, precision and stopping."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    """Stop after this many optimiser steps; -1: train for `epochs`."""
    global_batch_size: int | None = Field(None, ge=1)
    """Conversations per optimiser step over all devices; without it, a step is
    `gradient_accumulation_steps` full batches on each device."""
    max_tokens_per_batch: int = Field(6144, ge=64)
    """Maximum number of tokens in one device's batch, padding included."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches per optimiser step and device; follows from `global_batch_size` where that is given."""
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_ratio: float = Field(0.05, ge=0, le=1)
    """The cosine ends at this share of the learning rate."""
    warmup_steps: float = Field(100, ge=0)
    """Number of warm-up steps; a value below 1 is a share of all steps."""
    weight_decay: float = Field(0.1, ge=0)
    beta2: float = Field(0.95, gt=0, lt=1)
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients with a larger norm are clipped to it; 0: no clipping."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16: autocast over float32 weights; with ZeRO, bfloat16 weights and a float32 copy in the optimiser."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better held-out loss, and keep the best weights."""
    average_with_base: float = Field(0.0, ge=0, lt=1)
    """Share of the base in the saved weights, which are its weighted mean with the trained ones (WiSE-FT,
    arXiv:2109.01903)."""
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_agree(self) -> Optimisation:
        if self.max_steps == 0:
            raise ValueError("max_steps 0 trains nothing; give a number of steps, or -1 for whole epochs")
        if self.global_batch_size is not None and self.gradient_accumulation_steps != 1:
            raise ValueError("gradient_accumulation_steps follows from global_batch_size; give one of them")
        return self


class Lora(Settings):
    """Low-rank adapters (LoRA, arXiv:2106.09685), which are trained instead of all weights."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the adapted modules; all-linear: every linear layer except the head."""
    load_in_4bit: bool = False
    """Keep the base in 4-bit NF4 (QLoRA, arXiv:2305.14314); needs bitsandbytes."""


class Compute(Settings):
    """How an optimiser step is computed. These settings change speed and memory, and the result only by rounding."""

    packing: bool = False
    """A batch is one row of whole conversations that cannot attend to each other; otherwise padded rows of nearly equal
    length."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = "auto"
    """Transformers' implementations; auto: FlashAttention in bfloat16 where it is installed, else SDPA."""
    liger: bool = False
    """Liger kernels (GPU; `pip install liger-kernel`)."""
    compile: bool = False
    """Apply torch.compile to every layer."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of layers and recompute the rest: less memory, a third more computation."""


class Layout(Settings):
    """Distribution of a model over devices (ZeRO, arXiv:1910.02054)."""

    zero: Literal[0, 1, 2, 3] = 0
    """ZeRO stage. 1 splits optimiser states over devices, 2 gradients too, 3 weights too; 0 runs without DeepSpeed."""
    offload: bool = False
    """Keep the optimiser states, and with ZeRO-3 the weights, in the host's memory."""

    @model_validator(mode="after")
    def _something_to_offload(self) -> Layout:
        if self.offload and not self.zero:
            raise ValueError("offload needs zero 1, 2 or 3")
        return self


class Generation(Settings):
    """Default sampling of the finished model (its generation_config.json)."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)


class TrainConfig(Settings):
    """A training recipe: everything that determines a training run."""

    renamed: ClassVar[Mapping[str, str]] = {
        "out": "output_dir",
        "report": "report_to",
        "lora.four_bit": "lora.load_in_4bit",
        "optim.batch": "optim.global_batch_size",
        "optim.batch_tokens": "optim.max_tokens_per_batch",
        "optim.accumulate": "optim.gradient_accumulation_steps",
    }

    description: Operational[str] = ""
    """One line for `selfplay recipes`."""
    role: TrainedRole
    """Whose tokens carry loss: user (UserGPT), assistant, or all (a base model)."""
    template: str | None = None
    """Family, fastchat conversation name, or a .jinja file with generation tags. Without it: the base's own family;
    ChatML for a base without a template."""
    base: str | None = None
    """Model folder or hub name to start from; nano: the embedded base. Leave out with `scratch`."""
    scratch: ScratchModel | None = None
    """Start from random weights and train a tokenizer."""
    data: TrainData
    optim: Optimisation = Optimisation()
    compute: Compute = Compute()
    lora: Lora | None = None
    """Train adapters; the output folder then holds the adapters, and `selfplay train merge` puts them into the base."""
    processes: int = Field(1, ge=1)
    """Number of training processes, one for each device."""
    zero: Literal[0, 1, 2, 3] | None = None
    """Overrides the ZeRO stage of the layout."""
    offload: bool | None = None
    """Overrides the offload of the layout."""
    layouts: Mapping[int, Layout] = {}
    """Layout by number of processes; a number between two entries takes the lower one's layout. Empty: no ZeRO."""
    report_to: Operational[tuple[Literal["tensorboard", "wandb"], ...]] = ()
    """Trackers that get the loss curves, in addition to loss.png."""
    generation: Generation = Generation()
    output_dir: Operational[str]
    """Folder of the finished model; its `checkpoints/` holds the checkpoints while training runs."""
    log_steps: int = Field(20, ge=1)
    eval_steps: int = Field(200, ge=1)
    save_steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _one_start(self) -> TrainConfig:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("give exactly one of 'base' (a model folder) and 'scratch' (a new model)")
        if self.lora is not None and self.scratch is not None:
            raise ValueError("lora adapts a 'base'; a new model ('scratch') has nothing to adapt")
        if self.optim.average_with_base and self.base is None:
            raise ValueError("optim.average_with_base needs a 'base'; a new model ('scratch') has none")
        size = self.optim.global_batch_size
        if size is not None and size % self.processes:
            raise ValueError(f"optim.global_batch_size {size} does not share out over {self.processes} processes")
        layout = self.layout
        if self.lora is not None and self.lora.load_in_4bit and layout.zero == 3:
            raise ValueError(
                "lora.load_in_4bit and zero 3 do not go together: ZeRO-3 cannot split 4-bit weights; use zero 2"
            )
        if self.offload and not layout.zero:
            raise ValueError("offload needs zero 1, 2 or 3")
        return self

    @property
    def layout(self) -> Layout:
        """The layout for this number of processes, with `zero` and `offload` overriding it."""
        fitting = [count for count in self.layouts if count <= self.processes]
        layout = self.layouts[max(fitting)] if fitting else Layout()
        zero = layout.zero if self.zero is None else self.zero
        offload = layout.offload if self.offload is None else self.offload
        return Layout(zero=zero, offload=offload and zero > 0)

    @property
    def launched(self) -> bool:
        """Whether the run needs a launcher: it has several processes, or uses DeepSpeed."""
        return self.processes > 1 or self.layout.zero > 0
