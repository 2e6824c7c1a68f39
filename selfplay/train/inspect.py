"""Inspection of training examples (`selfplay train inspect`): the tokens of one conversation and its loss mask.

It loads a tokenizer and no model. Trap: it does not cut at data.max_tokens, so it also shows tokens that training cuts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.chat.families import family
from selfplay.chat.models import EMBEDDED, locate_model
from selfplay.data.catalogue import locate
from selfplay.data.loading import LoadResult, stream
from selfplay.errors import ConfigError, DataError
from selfplay.train.roles import TrainedSide


@dataclass(frozen=True, slots=True)
class TokenView:
    """A conversation as tokens: the text of each token, and whether it carries loss."""

    id: str
    tokens: list[tuple[str, bool]]


def inspect(
    source: str,
    template: str,
    side: TrainedSide,
    base: str = EMBEDDED,
    number: int = 1,
    id: str | None = None,
) -> TokenView:
    """Return the tokens of one conversation of a dataset or file, with the supervised ones marked.

    The tokenizer, by default the embedded one, gets the control tokens of the template family that it lacks.

    Raises:
        SelfplayError: there is no such conversation, template family or tokenizer.
    """
    from itertools import islice

    from selfplay.chat.rendering import ChatRenderer
    from selfplay.train.tokenizer import load_tokenizer

    template_family = family(template)
    if number < 1:
        raise ConfigError(f"--number {number}: conversations are counted from 1")
    loaded = LoadResult()
    matching = (item for item in stream(locate(source), loaded) if id in (None, item.id))
    conversation = next(islice(matching, number - 1, None), None)
    if conversation is None:
        wanted = f"number {number}" if id is None else f"with id {id!r}"
        raise DataError(
            f"{source}: no conversation {wanted}; {loaded.rows} rows, {loaded.refused.summary() or 'all used'}"
        )
    conversation = side.view(conversation)
    if template_family.single_turn and len(conversation.turns) > 2:
        raise ConfigError(
            f"template {template_family.name} takes one user turn and one answer; {conversation.id} has more"
        )
    name = str(locate_model(base, "base")) if base == EMBEDDED or Path(base).exists() else base
    tokenizer = load_tokenizer(name)
    missing = [token for token in template_family.special_tokens if token not in tokenizer.all_special_tokens]
    tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    tokenizer.eos_token = template_family.end_of_turn
    renderer = ChatRenderer(tokenizer, template_family.template(side.role))
    ids, mask = renderer.render(conversation)
    return TokenView(conversation.id, list(_texts(tokenizer, ids, mask)))


def _texts(tokenizer: Any, ids: list[int], mask: list[int]) -> Iterator[tuple[str, bool]]:
    """Yield token texts; tokens that are parts of one character are joined."""
    begun: list[int] = []
    for id, on in zip(ids, mask, strict=True):
        begun.append(id)
        pieces = tokenizer.convert_ids_to_tokens(begun)
        text = tokenizer.backend_tokenizer.decode(begun, skip_special_tokens=False)
        # SentencePiece decoders strip the space of the first piece; it is put back.
        if pieces[0].startswith("▁") and not text.startswith(" "):
            text = " " + text
        # U+FFFD marks an incomplete character; UTF-8 has at most four bytes, so four tokens end the wait.
        if "\ufffd" not in text or len(begun) == 4:
            yield text, bool(on)
            begun = []
