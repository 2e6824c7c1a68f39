"""Tokenizers like those of the template families, built here: byte-level BPE, and the two ways of SentencePiece's."""

import json
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from selfplay.chat.families import END_OF_CONVERSATION, family
from selfplay.data.loading import load

SENTENCEPIECE = ("llama2", "mistral", "vicuna", "realm", "ultralm", "alpaca", "alpaca_lora")
"""Families whose models have LLaMA's tokenizer."""
_LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3_SPLIT += r"|\s*[\r\n]+|\s+(?!\S)|\s+"


@lru_cache
def tokenizer_for(name, prefix="prepend"):
    """A tokenizer of the kind the family's models have, with the tokens of its text.

    Args:
        prefix: of LLaMA's kind, whether the space is put before every stretch of text ("prepend", as in Llama 2's file)
            or only at the beginning ("first", as in newer conversions).
    """
    known = family(name)
    plain = _sentencepiece(prefix) if known.name in SENTENCEPIECE else _byte_level()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(plain),
        eos_token=known.end_of_turn,
        pad_token="<pad>",
        additional_special_tokens=[token for token in (*known.needs, *known.adds) if token != known.end_of_turn]
        + [END_OF_CONVERSATION],
        clean_up_tokenization_spaces=False,
    )


def save_base(folder, name, tied=False):
    """A folder like a family's base model: random weights, its tokenizer, no template and no token the base lacks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    known = family(name)
    plain = _sentencepiece("prepend") if known.name in SENTENCEPIECE else _byte_level()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(plain),
        eos_token=known.end_of_turn if known.needs else "<|endoftext|>",
        additional_special_tokens=[token for token in known.needs if token != known.end_of_turn],
    )
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=tied, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _texts():
    sample = [turn.content for conversation in load(["sample"]).conversations for turn in conversation.turns]
    return [
        *sample,
        "USER: ASSISTANT: [INST] [/INST] <<SYS>> ### Instruction: ### Response: user assistant model system",
    ] * 2


@lru_cache
def _byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer.to_str()


@lru_cache
def _sentencepiece(prefix):
    tokenizer = Tokenizer(models.BPE())
    # Trained on words apart, used without: as in LLaMA's file, merges never cross the space that begins a word.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False)
    tokenizer.train_from_iterator((text.replace("\n", " ") for text in _texts()), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {name: number for number, name in enumerate([*names, *learned["vocab"]])}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if prefix == "prepend":
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer.to_str()
