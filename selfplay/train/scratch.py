"""Model from scratch: a byte-level BPE tokenizer trained on the training texts, and a small random Llama."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from selfplay.chat.families import Family
from selfplay.train.config import ScratchModel

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD = "<|pad|>"


def train_tokenizer(texts: Iterable[str], model: ScratchModel, family: Family) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the template family's special tokens first.

    Any byte sequence can be encoded and decoded, because the alphabet holds all 256 bytes from the start.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=model.vocab_size,
        special_tokens=[PAD, *family.special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=family.end_of_turn,
        additional_special_tokens=[token for token in family.special_tokens if token != family.end_of_turn],
        model_max_length=model.max_positions,
        clean_up_tokenization_spaces=False,
    )


def scratch_shape(model: ScratchModel, vocabulary: int, **tokens: int | None) -> LlamaConfig:
    """Build the configuration of a Llama with tied embeddings; `tokens` are the ids of its special tokens."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.heads,
        max_position_embeddings=model.max_positions,
        tie_word_embeddings=True,
        **tokens,
    )


def random_model(model: ScratchModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Create a Llama in float32 with random weights from `seed`."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaForCausalLM(scratch_shape(model, len(tokenizer), **tokens))
