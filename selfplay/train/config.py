"""What a training recipe may say. Reading one loads no model code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from selfplay.chat.conversation import TrainedRole
from selfplay.recipe import Operational, Settings


class ScratchModel(Settings):
    """A new Llama-architecture model with a new byte-level BPE tokenizer."""

    vocab_size: int = Field(6144, ge=300)
    """Tokens, special ones included."""
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
    """Which conversations are trained on."""

    datasets: tuple[str, ...]
    """Catalogue names, paths or hub names, each `name` or `name=weight`: how often an epoch has its conversations."""
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of each dataset kept out of training, by conversation."""
    max_tokens: int = Field(768, ge=16)
    """Longer conversations are cut on the right; a cut one shows no ending."""
    strict: bool = False
    """Stop at the first bad row instead of counting and skipping it."""
    eval_conversations: int = Field(400, ge=1)
    """Held-out conversations the loss is followed on."""


class Optimisation(Settings):
    """How the weights move."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    """Stop after this many optimiser steps; -1: epochs decide."""
    global_batch_size: int | None = Field(None, ge=1)
    """Conversations per optimiser step over all devices; left out, a step is
    `gradient_accumulation_steps` full batches a device."""
    max_tokens_per_batch: int = Field(6144, ge=64)
    """Tokens of one device's batch, padding included."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches per optimiser step and device; follows from `global_batch_size` where that is given."""
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_ratio: float = Field(0.05, ge=0, le=1)
    """The cosine ends at this share of the learning rate."""
    warmup_steps: float = Field(100, ge=0)
    """Steps; below 1 a share of all steps."""
    weight_decay: float = Field(0.1, ge=0)
    beta2: float = Field(0.95, gt=0, lt=1)
    max_grad_norm: float = Field(1.0, ge=0)
    """Longer gradients are cut to this norm; 0: never."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16: autocast over float32 weights; with ZeRO, bfloat16 weights and a float32 copy in the optimiser."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better held-out loss, and keep the best weights."""
    average_with_base: float = Field(0.0, ge=0, lt=1)
    """The base's share in the weights that are saved: their mean with the trained ones (WiSE-FT, arXiv:2109.01903)."""
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_agree(self) -> Optimisation:
        if self.max_steps == 0:
            raise ValueError("max_steps 0 trains nothing; give a number of steps, or -1 for whole epochs")
        if self.global_batch_size is not None and self.gradient_accumulation_steps != 1:
            raise ValueError("gradient_accumulation_steps follows from global_batch_size; give one of them")
        return self


class Lora(Settings):
    """Low-rank adapters (LoRA, arXiv:2106.09685) instead of all weights."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Module names; all-linear: every linear layer but the head."""
    load_in_4bit: bool = False
    """Keep the base in 4-bit NF4 (QLoRA, arXiv:2305.14314); needs bitsandbytes."""


class Compute(Settings):
    """How a step is computed. Nothing here changes what is learned, beyond rounding."""

    packing: bool = False
    """A batch is one row of whole conversations that cannot see each other; else rows of nearly equal length."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = "auto"
    """Transformers' implementations; auto: FlashAttention in bfloat16 where it is installed, else SDPA."""
    liger: bool = False
    """Liger kernels (GPU; `pip install liger-kernel`)."""
    compile: bool = False
    """torch.compile on every layer."""
    gradient_checkpointing: bool = False
    """Keep only layer inputs and compute the rest again: less memory, a third more work."""


class Layout(Settings):
    """How a model lies on devices (ZeRO, arXiv:1910.02054)."""

    zero: Literal[0, 1, 2, 3] = 0
    """What is split over devices: 1 optimiser states, 2 gradients too, 3 weights too; 0: nothing, without DeepSpeed."""
    offload: bool = False
    """Optimiser states, and with ZeRO-3 weights, in the host's memory."""

    @model_validator(mode="after")
    def _something_to_offload(self) -> Layout:
        if self.offload and not self.zero:
            raise ValueError("offload needs zero 1, 2 or 3")
        return self


class Generation(Settings):
    """How the finished model is sampled where nothing else is said (its generation_config.json)."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)


class TrainConfig(Settings):
    """A training recipe."""

    renamed: ClassVar[Mapping[str, str]] = {
        "out": "output_dir",
        "report": "report_to",
        "lora.load_in_4bit": "lora.load_in_4bit",
        "optim.global_batch_size": "optim.global_batch_size",
        "optim.max_tokens_per_batch": "optim.max_tokens_per_batch",
        "optim.gradient_accumulation_steps": "optim.gradient_accumulation_steps",
    }

    description: Operational[str] = ""
    """One line for `selfplay recipes`."""
    role: TrainedRole
    """Whose tokens carry loss: user (UserGPT), assistant, or all (a base model)."""
    template: str | None = None
    """Family, fastchat conversation name, or a .jinja file with generation tags. Left out: the base's own family;
    ChatML for a base without template."""
    base: str | None = None
    """Model folder or hub name to start from; nano: the embedded base. Leave out with `scratch`."""
    scratch: ScratchModel | None = None
    """Start from random weights and train a tokenizer."""
    data: TrainData
    optim: Optimisation = Optimisation()
    compute: Compute = Compute()
    lora: Lora | None = None
    """Train adapters; the folder then holds them, and `selfplay train merge` puts them into the base."""
    processes: int = Field(1, ge=1)
    """One a device."""
    zero: Literal[0, 1, 2, 3] | None = None
    """Overrides the layout."""
    offload: bool | None = None
    """Overrides the layout."""
    layouts: Mapping[int, Layout] = {}
    """Layout by number of processes; a number between two takes the lower one's. Without: no ZeRO."""
    report_to: Operational[tuple[Literal["tensorboard", "wandb"], ...]] = ()
    """Where curves are shown beside loss.png."""
    generation: Generation = Generation()
    output_dir: Operational[str]
    """Folder of the finished model; checkpoints lie in its `checkpoints/` while training runs."""
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
        """The layout for this number of processes, overrides applied."""
        fitting = [count for count in self.layouts if count <= self.processes]
        given = self.layouts[max(fitting)] if fitting else Layout()
        zero = given.zero if self.zero is None else self.zero
        offload = given.offload if self.offload is None else self.offload
        return Layout(zero=zero, offload=offload and zero > 0)

    @property
    def launched(self) -> bool:
        """Whether it takes a launcher: several processes, or DeepSpeed."""
        return self.processes > 1 or self.layout.zero > 0
