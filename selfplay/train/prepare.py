"""Everything that comes before a model: data, tokenizer, template, token rows. Wrong input ends here, in seconds.

`prepare_inputs` looks and decides; `write_prepared` puts what every process of the run reads into `checkpoints/`:

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
"""Written at once."""


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """A run's data as token rows, and where it starts from."""

    config: TrainConfig
    side: TrainedSide
    start: TrainTokenizer
    shape: Any
    """The architecture's settings."""
    train: Examples
    held_out: Examples
    conversations: int
    fingerprint: str
    limit: int
    """Tokens a conversation is cut at."""
    parameters: int
    trained: int
    """Parameters that are trained."""


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """What a process of the run reads."""

    config: TrainConfig
    side: TrainedSide
    tokenizer: Any
    train: Any
    """Dataset with columns id, input_ids and labels."""
    held_out: Any
    facts: dict[str, Any]


def prepare_inputs(config: TrainConfig, side: TrainedSide, say: Callable[[str], None]) -> TrainInputs:
    """Load, check and tokenise.

    Raises:
        DataError, ModelError, EmptyLossMask: what cannot be trained.
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


def write_prepared(gathered: TrainInputs, folder: Path) -> None:
    """Leave what the processes of the run read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in (("train", gathered.train), ("held_out", gathered.held_out)):
        _write_rows(examples, folder / f"{name}.arrow")
    gathered.start.tokenizer.save_pretrained(folder / "tokenizer")
    facts = {
        "recipe": gathered.config.model_dump(mode="json"),
        "side": asdict(gathered.side),
        "data_fingerprint": gathered.fingerprint,
        "conversations": gathered.conversations,
        "supervised": gathered.train.supervised,
        "template": gathered.start.family.name if gathered.start.family else gathered.config.template,
        "new_tokens": gathered.start.new_tokens,
        "limit": gathered.limit,
        "revision": getattr(gathered.shape, "_commit_hash", None),
    }
    (folder / _PREPARED).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_prepared(folder: Path) -> PreparedTraining:
    """What `write_prepared` left."""
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
    """Token rows as an Arrow file, some at a time: one column of all would be too long for its 32-bit offsets."""
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
    """PEFT gathers rows of new tokens under ZeRO-3 on GPUs only.

    Raises:
        ConfigError: that is asked for without one.
    """
    if config.lora is None or config.layout.zero < 3 or not start.new_tokens:
        return
    import torch

    if not torch.cuda.is_available():
        tokens = ", ".join(start.tokenizer.convert_ids_to_tokens(start.new_tokens))
        raise ConfigError(f"adapters with ZeRO-3 cannot train tokens that are new to the base ({tokens}); use --zero 2")


def fingerprint(conversations: list[Conversation]) -> str:
    """A hash of ids and texts in order: the same data gives the same value."""
    digest = blake2b(digest_size=16)
    for conversation in conversations:
        learned = (conversation.id, conversation.complete, conversation.context)
        digest.update("\x1d".join(map(str, learned)).encode())
        for turn in conversation.turns:
            digest.update(f"\x1e{turn.role}\x1f{turn.content}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _stride(held_out: list[Conversation], config: TrainConfig) -> int:
    """Take every n-th held-out conversation, so that each dataset is in the followed loss."""
    return max(1, len(held_out) // config.data.eval_conversations)


def _report(loaded: LoadResult, say: Callable[[str], None]) -> None:
    for reason, count in loaded.refused.counts.most_common():
        say(f"skipped {count} rows: {reason} (first: {loaded.refused.examples[reason]})")
