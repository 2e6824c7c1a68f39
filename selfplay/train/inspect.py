"""What `selfplay train` does: recipes found and checked, run or only planned, adapters merged, masks shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import TrainedRole
from selfplay.chat.families import family
from selfplay.chat.models import EMBEDDED, locate_model
from selfplay.data.catalogue import locate
from selfplay.data.loading import Loaded, stream
from selfplay.errors import ConfigError, DataError
from selfplay.recipe import load_recipe
from selfplay.train.config import TrainConfig
from selfplay.train.launch.environment import check_environment
from selfplay.train.run import CHECKPOINTS, TrainResult
from selfplay.train.run import train as run_training

if TYPE_CHECKING:
    from selfplay.train.plan import Estimate

ROLES: dict[str, TrainedRole] = {"simulator": "user", "assistant": "assistant", "base": "all"}


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What a run would do. `line` is empty for one that needs no launcher, `deepspeed` None without it."""

    config: TrainConfig
    estimate: Estimate
    line: list[str]
    deepspeed: dict[str, Any] | None


def train(config: TrainConfig, *, resume: bool = False, say: Callable[[str], None] = print) -> TrainResult:
    """Train a model by recipe.

    Raises:
        SelfplayError: found in recipe, data, template or model; or training broke.
    """
    return run_training(located(config), resume=resume, say=say)


def plan_training(config: TrainConfig, say: Callable[[str], None] = print) -> TrainPlan:
    """What training would take; loads the data and no weights.

    Raises:
        SelfplayError: see `train`.
    """
    from selfplay.train.launch.deepspeed_config import deepspeed_config
    from selfplay.train.launch.launch import launch_line
    from selfplay.train.plan import estimate
    from selfplay.train.prepare import gather

    config = located(config)
    check_environment(config)
    figures = estimate(gather(config, say))
    line = launch_line(config, Path(config.out) / CHECKPOINTS) if config.launched else []
    return TrainPlan(config, figures, line, deepspeed_config(config, figures.batches_per_step))


def train_recipe(
    role: str, recipe: str, overrides: Mapping[str, Any], assigned: Mapping[str, Any] | None = None
) -> TrainConfig:
    """A training recipe with overrides, checked to train the model that was asked for.

    Args:
        role: simulator, assistant or base.
        overrides: `lora: True` turns adapters on where the recipe has none.

    Raises:
        ConfigError: the recipe trains another role.
    """
    given = dict(overrides)
    lora = given.pop("lora", None)
    config = load_recipe(recipe, TrainConfig, given, assigned)
    if lora and config.lora is None:
        config = load_recipe(recipe, TrainConfig, {**given, "lora": {}}, assigned)
    if config.role != ROLES[role]:
        raise ConfigError(f"recipe {recipe!r} trains role {config.role!r}; `train {role}` needs role: {ROLES[role]}")
    return config


def located(config: TrainConfig) -> TrainConfig:
    """The recipe with the folder of its base in place of a name; what is no folder is left as a name on the hub."""
    name = config.base
    if name is None or (name != EMBEDDED and not Path(name).expanduser().exists()):
        return config
    return config.model_copy(update={"base": str(locate_model(name, "base"))})


def merge_adapters(adapter: Path, out: Path) -> None:
    """Put LoRA adapters into their base.

    Raises:
        SelfplayError: see `selfplay.train.merge.merge`.
    """
    from selfplay.train.merge import merge

    merge(adapter, out)


@dataclass(frozen=True, slots=True)
class Shown:
    """A conversation as training sees it: token texts, and whether each one carries loss."""

    id: str
    tokens: list[tuple[str, bool]]


def inspect(
    source: str,
    template: str,
    role: TrainedRole,
    base: str = EMBEDDED,
    number: int = 1,
    id: str | None = None,
) -> Shown:
    """The tokens of one conversation of a dataset or file, the supervised ones marked.

    The embedded tokenizer, the default, is lent the control tokens of the family.

    Raises:
        SelfplayError: no such conversation, family or tokenizer.
    """
    from itertools import islice

    from selfplay.chat.rendering import ChatRenderer
    from selfplay.train.examples import as_seen_by
    from selfplay.train.tokenizer import load_tokenizer

    known = family(template)
    if number < 1:
        raise ConfigError(f"--number {number}: conversations are counted from 1")
    loaded = Loaded()
    found = (item for item in stream(locate(source), loaded) if id in (None, item.id))
    conversation = next(islice(found, number - 1, None), None)
    if conversation is None:
        wanted = f"number {number}" if id is None else f"with id {id!r}"
        raise DataError(
            f"{source}: no conversation {wanted}; {loaded.rows} rows, {loaded.refused.summary() or 'all used'}"
        )
    conversation = as_seen_by(role, conversation)
    if known.single_turn and len(conversation.turns) > 2:
        raise ConfigError(f"template {known.name} takes one user turn and one answer; {conversation.id} has more")
    name = str(locate_model(base, "base")) if base == EMBEDDED or Path(base).exists() else base
    tokenizer = load_tokenizer(name)
    missing = [token for token in known.special_tokens if token not in tokenizer.all_special_tokens]
    tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    tokenizer.eos_token = known.end_of_turn
    renderer = ChatRenderer(tokenizer, known.template(role))
    ids, mask = renderer.render(conversation)
    return Shown(conversation.id, list(_texts(tokenizer, ids, mask)))


def _texts(tokenizer: Any, ids: list[int], mask: list[int]) -> Iterator[tuple[str, bool]]:
    """Token texts. Tokens that are parts of one character come together."""
    begun: list[int] = []
    for id, on in zip(ids, mask, strict=True):
        begun.append(id)
        pieces = tokenizer.convert_ids_to_tokens(begun)
        text = tokenizer.backend_tokenizer.decode(begun, skip_special_tokens=False)
        if pieces[0].startswith("▁") and not text.startswith(" "):
            text = " " + text
        if "\ufffd" not in text or len(begun) == 4:
            yield text, bool(on)
            begun = []
