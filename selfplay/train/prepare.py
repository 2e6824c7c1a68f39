"""Preparation of training data: mixture, tokenizer, template and token rows, before any model is loaded.

It loads no weights, so that wrong input fails here, in seconds. `prepare_inputs` loads and checks; `write_prepared`
writes what every process of the run reads into `checkpoints/`:

    prepared.json   recipe, data fingerprint, counts
    tokenizer/      with the trained role's template
    train.arrow held_out.arrow   token rows, read without loading them
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Conversation
from selfplay.data.loading import LoadResult
from selfplay.data.mixing import load_mixture
from selfplay.errors import ConfigError
from selfplay.train.architecture import count_parameters, model_shape
from selfplay.train.config import TrainConfig
from selfplay.train.examples import Examples, build_examples
from selfplay.train.roles import TrainedSide
from selfplay.train.tokenizer import TrainTokenizer, start_tokenizer

_PREPARED = "prepared.json"
_ROWS = 1000
"""Number of rows that are written at once."""


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """The checked inputs of a run: its data as token rows, its tokenizer and its architecture."""

    config: TrainConfig
    side: TrainedSide
    start: TrainTokenizer
    shape: Any
    """The architecture's configuration."""
    train: Examples
    held_out: Examples
    conversations: int
    fingerprint: str
    limit: int
    """Number of tokens at which a conversation is cut."""
    parameters: int
    trained: int
    """Number of trained parameters."""


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """The prepared inputs as a training process reads them from disk."""

    config: TrainConfig
    side: TrainedSide
    tokenizer: Any
    train: Any
    """Dataset with columns id, input_ids and labels."""
    held_out: Any
    facts: dict[str, Any]


def prepare_inputs(config: TrainConfig, side: TrainedSide, say: Callable[[str], None]) -> TrainInputs:
    """Load, check and tokenise the data of a recipe.

    Raises:
        DataError, ModelError, EmptyLossMask: the data, the base or the template cannot be trained with.
    """
    data = config.data
    mixture = load_mixture(data.datasets, held_out=data.held_out, seed=config.optim.seed, strict=data.strict)
    _report(mixture.loaded, say)
    conversations = [side.view(conversation) for conversation in mixture.train]
    held_out = [side.view(conversation) for conversation in mixture.held_out]
    start = start_tokenizer(config, side, conversations)
    shape = model_shape(config, len(start.tokenizer))
    _refuse_new_tokens(config, start)
    parameters, trained = count_parameters(config, shape, len(start.tokenizer), len(start.new_tokens))
    limit = min(data.max_tokens, getattr(shape, "max_position_embeddings", None) or data.max_tokens)
    examples = build_examples(conversations, start.renderer, limit, start.family)
    evaluated = build_examples(held_out[:: _stride(held_out, config)], start.renderer, limit, start.family)
    for reason, count in examples.skipped.most_common():
        say(f"skipped {count} conversations: {reason}")
    say(
        f"{len(held_out)} conversations held out, {len(conversations)} to train on: "
        f"{len(examples.input_ids)} conversations, {examples.tokens:,} tokens, {examples.supervised:,} supervised "
        f"({config.role}), {examples.cut} cut at {limit} tokens; {parameters:,} parameters, {trained:,} trained"
    )
    return TrainInputs(
        config,
        side,
        start,
        shape,
        examples,
        evaluated,
        len(conversations),
        fingerprint(conversations),
        limit,
        parameters,
        trained,
    )


def write_prepared(inputs: TrainInputs, folder: Path) -> None:
    """Write the inputs that the processes of the run read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in (("train", inputs.train), ("held_out", inputs.held_out)):
        _write_rows(examples, folder / f"{name}.arrow")
    inputs.start.tokenizer.save_pretrained(folder / "tokenizer")
    facts = {
        "recipe": inputs.config.model_dump(mode="json"),
        "side": asdict(inputs.side),
        "data_fingerprint": inputs.fingerprint,
        "conversations": inputs.conversations,
        "supervised": inputs.train.supervised,
        "template": inputs.start.family.name if inputs.start.family else inputs.config.template,
        "new_tokens": inputs.start.new_tokens,
        "limit": inputs.limit,
        "revision": getattr(inputs.shape, "_commit_hash", None),
    }
    (folder / _PREPARED).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_prepared(folder: Path) -> PreparedTraining:
    """Read the inputs that `write_prepared` wrote."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    facts = json.loads((folder / _PREPARED).read_text(encoding="utf-8"))
    return PreparedTraining(
        TrainConfig.model_validate(facts["recipe"]),
        TrainedSide(**facts["side"]),
        AutoTokenizer.from_pretrained(folder / "tokenizer"),
        Dataset.from_file(str(folder / "train.arrow")),
        Dataset.from_file(str(folder / "held_out.arrow")),
        facts,
    )


def _write_rows(examples: Examples, file: Path) -> None:
    """Write token rows as an Arrow file, in parts: a column of all rows would be too long for its 32-bit offsets."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    ids = List(Value("int32"))
    features = Features({"id": Value("string"), "input_ids": ids, "labels": ids})
    columns = examples.columns()
    with ArrowWriter(path=str(file), features=features) as writer:
        for start in range(0, len(examples.ids), _ROWS):
            writer.write_batch({name: values[start : start + _ROWS] for name, values in columns.items()})
        writer.finalize()


def _refuse_new_tokens(config: TrainConfig, start: TrainTokenizer) -> None:
    """Refuse adapters with new tokens under ZeRO-3 on a CPU: PEFT gathers the rows of new tokens on GPUs only.

    Raises:
        ConfigError: the recipe asks for it and there is no GPU.
    """
    if config.lora is None or config.layout.zero < 3 or not start.new_tokens:
        return
    import torch

    if not torch.cuda.is_available():
        tokens = ", ".join(start.tokenizer.convert_ids_to_tokens(start.new_tokens))
        raise ConfigError(f"adapters with ZeRO-3 cannot train tokens that are new to the base ({tokens}); use --zero 2")


def fingerprint(conversations: list[Conversation]) -> str:
    """Hash the ids and texts of conversations in order: the same data gives the same value."""
    digest = blake2b(digest_size=16)
    for conversation in conversations:
        # complete and context count too: they change which tokens carry loss.
        learned = (conversation.id, conversation.complete, conversation.context)
        digest.update("\x1d".join(map(str, learned)).encode())
        for turn in conversation.turns:
            digest.update(f"\x1e{turn.role}\x1f{turn.content}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _stride(held_out: list[Conversation], config: TrainConfig) -> int:
    """The step between evaluated held-out conversations.

    Taking every n-th one, instead of the first ones, keeps each dataset in the evaluated loss.
    """
    return max(1, len(held_out) // config.data.eval_conversations)


def _report(loaded: LoadResult, say: Callable[[str], None]) -> None:
    """Report the rows that were skipped, by reason."""
    for reason, count in loaded.refused.counts.most_common():
        say(f"skipped {count} rows: {reason} (first: {loaded.refused.examples[reason]})")
