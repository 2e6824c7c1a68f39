"""Tokenizer and chat template of a training run, checked before any model is loaded.

It knows no architecture; rows for new tokens are added to the model in `selfplay.train.model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Conversation, Role, TrainedRole, conversation_from_pairs
from selfplay.chat.families import END_OF_CONVERSATION, FAMILIES, Family, family
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import EmptyLossMask, ModelError
from selfplay.train.config import TrainConfig
from selfplay.train.roles import TrainedSide


@dataclass(frozen=True, slots=True)
class TrainTokenizer:
    """A tokenizer that is ready for training, with its chat template.

    Attributes:
        renderer: renders conversations with the template of the trained role.
        family: the template family; None for a template file.
        new_tokens: token ids that are new to the base.
    """

    tokenizer: Any
    renderer: ChatRenderer
    family: Family | None
    new_tokens: list[int]


def start_tokenizer(config: TrainConfig, side: TrainedSide, conversations: Sequence[Conversation]) -> TrainTokenizer:
    """Load or train the tokenizer of a recipe, and choose and check its template.

    Raises:
        ModelError: there is no usable tokenizer, it lacks tokens of the template, or the template cannot be trained.
    """
    if config.scratch is not None:
        from selfplay.train.scratch import train_tokenizer

        chosen = family(config.template or "nano")
        texts = (turn.content for conversation in conversations for turn in conversation.turns)
        return _finish(config, side, train_tokenizer(texts, config.scratch, chosen), chosen)
    tokenizer = load_tokenizer(str(config.base))
    if config.template is not None and config.template.endswith(".jinja"):
        return _finish(config, side, tokenizer, None)
    return _finish(config, side, tokenizer, family(config.template) if config.template else recognise(tokenizer))


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a folder or of the hub; code that comes with it is never run.

    Raises:
        ModelError: there is no readable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{name}: no tokenizer that can be read ({str(error).splitlines()[0]})") from error


def recognise(tokenizer: Any) -> Family:
    """Return the family whose template renders the same text as the tokenizer's own; ChatML where it has no template.

    Raises:
        ModelError: its template belongs to no family.
    """
    own = tokenizer.chat_template
    if own is None:
        return family("chatml")
    for candidate in FAMILIES.values():
        if any(own == candidate.template(role) for role in (None, "user", "assistant", "all")):
            return candidate
    # Other sources of the same template (white space, order of branches) are recognised by what they render.
    rendered = _texts(tokenizer, own, single_turn=False)
    for candidate in FAMILIES.values():
        if rendered is not None and rendered == _texts(tokenizer, candidate.template(), single_turn=False):
            return candidate
    raise ModelError(
        f"{tokenizer.name_or_path}: its own chat template is that of no family here; name the one to train with "
        f"(template: {', '.join(FAMILIES)}, or a .jinja file with generation tags)"
    )


def _texts(tokenizer: Any, template: str, *, single_turn: bool) -> list[str] | None:
    """Render the probe conversations with a template; None where it refuses them."""
    from jinja2 import TemplateError

    try:
        return [
            str(tokenizer.apply_chat_template(probe.messages(), chat_template=template, tokenize=False))
            for probe in probes("assistant", single_turn)
        ]
    except (TemplateError, TypeError):
        return None


def probes(role: TrainedRole, single_turn: bool) -> Iterator[Conversation]:
    """Yield the conversations with which a template is tested."""
    rounds = 1 if single_turn else 3
    pairs: list[tuple[Role, str]] = []
    for n in range(rounds):
        pairs += [("user", f"Question {n}?"), ("assistant", f"Answer {n}.")]
    yield conversation_from_pairs("without system turn", pairs)
    if role != "user" and not single_turn:
        yield conversation_from_pairs("with system turn", [("system", "Be brief."), *pairs])


def check_template(renderer: ChatRenderer, role: TrainedRole, single_turn: bool = False) -> None:
    """Check the properties of a template that training relies on.

    Raises:
        EmptyLossMask: the template marks no tokens for training.
        ModelError: it opens another role's turn, changes earlier tokens when a turn is appended, or trains turns
            without their end token.
    """
    if not renderer.has_generation_tags:
        raise EmptyLossMask(
            "the chat template has no {% generation %} tags, so no token would be trained; "
            "use a template family of this package or add the tags around the trained role's turns"
        )
    if role != "all" and not renderer.opens_turn_of(role):
        raise ModelError(f"the chat template's generation prompt does not open a {role} turn; nobody could sample one")
    ends = {renderer.end_of_turn_id, renderer.end_of_conversation_id}
    for probe in probes(role, single_turn):
        whole = renderer.render(probe)
        for count in range(1, len(probe.turns)):
            part = renderer.render(Conversation(probe.id, probe.turns[:count], complete=False))
            if whole.input_ids[: len(part.input_ids)] != part.input_ids:
                raise ModelError(
                    f"the chat template is not prefix-preserving: {probe.id}, appending turn {count + 1} changes the "
                    "tokens before it, so histories could not be extended; use a template family of this package"
                )
        for at, on in enumerate(whole.loss_mask):
            following = whole.loss_mask[at + 1] if at + 1 < len(whole.loss_mask) else 0
            if on and not following and whole.input_ids[at] not in ends:
                last = renderer.tokenizer.convert_ids_to_tokens(whole.input_ids[at])
                raise ModelError(
                    f"the chat template trains turns that end with {last!r}, not with the end token "
                    f"{renderer.tokenizer.eos_token!r}: the model would never learn to stop; put it inside the tags"
                )


def _finish(config: TrainConfig, side: TrainedSide, tokenizer: Any, chosen: Family | None) -> TrainTokenizer:
    """Add the control tokens, set the template, and check both."""
    before = len(tokenizer)
    if chosen is None:
        template = _template_file(str(config.template))
    else:
        _require(tokenizer, chosen, config)
        _add(tokenizer, chosen.adds)
        tokenizer.eos_token = chosen.end_of_turn
        template = chosen.template(config.role)
    _add(tokenizer, [END_OF_CONVERSATION] if side.ends_conversations else [])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.chat_template = template
    renderer = ChatRenderer(tokenizer, template)
    check_template(renderer, config.role, chosen is not None and chosen.single_turn)
    return TrainTokenizer(tokenizer, renderer, chosen, [] if config.scratch else list(range(before, len(tokenizer))))


def _require(tokenizer: Any, chosen: Family, config: TrainConfig) -> None:
    """Refuse a tokenizer that lacks tokens of the template family."""
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in chosen.needs if token not in vocabulary]
    if missing:
        raise ModelError(
            f"{config.base}: the tokenizer lacks {', '.join(missing)}, which template {chosen.name!r} needs; "
            "choose the template family the base was trained with"
        )


def _add(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add the control tokens that are missing, and turn plain tokens of the same text into control tokens."""
    plain = [token for token in tokens if token not in tokenizer.all_special_tokens]
    if plain:
        tokenizer.add_special_tokens({"additional_special_tokens": plain}, replace_extra_special_tokens=False)


def _template_file(name: str) -> str:
    """The text of a .jinja file."""
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{name}: no template that can be read ({error})") from error
