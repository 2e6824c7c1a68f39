"""`selfplay train inspect`: the tokens of one conversation as training sees it, the supervised ones marked."""

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
    """A conversation as training sees it: token texts, and whether each one carries loss."""

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
    """The tokens of one conversation of a dataset or file, the supervised ones marked.

    The embedded tokenizer, the default, is lent the control tokens of the family.

    Raises:
        SelfplayError: no such conversation, family or tokenizer.
    """
    from itertools import islice

    from selfplay.chat.rendering import ChatRenderer
    from selfplay.train.tokenizer import load_tokenizer

    known = family(template)
    if number < 1:
        raise ConfigError(f"--number {number}: conversations are counted from 1")
    loaded = LoadResult()
    found = (item for item in stream(locate(source), loaded) if id in (None, item.id))
    conversation = next(islice(found, number - 1, None), None)
    if conversation is None:
        wanted = f"number {number}" if id is None else f"with id {id!r}"
        raise DataError(
            f"{source}: no conversation {wanted}; {loaded.rows} rows, {loaded.refused.summary() or 'all used'}"
        )
    conversation = side.view(conversation)
    if known.single_turn and len(conversation.turns) > 2:
        raise ConfigError(f"template {known.name} takes one user turn and one answer; {conversation.id} has more")
    name = str(locate_model(base, "base")) if base == EMBEDDED or Path(base).exists() else base
    tokenizer = load_tokenizer(name)
    missing = [token for token in known.special_tokens if token not in tokenizer.all_special_tokens]
    tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    tokenizer.eos_token = known.end_of_turn
    renderer = ChatRenderer(tokenizer, known.template(side.role))
    ids, mask = renderer.render(conversation)
    return TokenView(conversation.id, list(_texts(tokenizer, ids, mask)))


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
