"""Conversations to token ids and loss masks, through a chat template, without letting text act as control.

The template is rendered with a placeholder for every message, so what it adds (the glue: headers, end-of-turn tokens)
is known apart from what people or models wrote. Glue is encoded with special tokens, content never is; a space before a
message goes with the message, and nothing else merges across a boundary. A turn that carries the ids a model sampled
keeps them: history is extended, not tokenised again.

Shapes  input_ids, loss_mask: list[int] of equal length T (tokens).
Mask    1 = inside {% generation %}, that is written by the trained role, end tokens included, and past the turns that
        are context; 0 = everything else.
Source  PlatoLM, arXiv:2308.11534: the user simulator is trained on the human's turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from selfplay.chat.boundaries import BREAK, Boundary
from selfplay.chat.conversation import Conversation, Role, Turn
from selfplay.chat.families import END_OF_CONVERSATION
from selfplay.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


class Rendered(NamedTuple):
    """Token ids and loss mask of equal length."""

    input_ids: list[int]
    loss_mask: list[int]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Glue text with its per-token mask, or (text None) the content of message `message`."""

    text: str | None
    message: int
    ids: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()
    lead: str = ""
    """What belongs to the content's first token: a space or nothing."""
    continues: bool = False
    """Whether plain text stands right before the content."""


class ChatRenderer:
    """A chat template bound to a tokenizer. Stateless but for caches; safe to share between conversations."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        """Bind `template` (default: the tokenizer's own).

        Raises:
            ModelError: no template, no fast tokenizer, or no end-of-turn token.
        """
        chosen = template or tokenizer.chat_template
        if not isinstance(chosen, str):
            raise ModelError(
                f"{tokenizer.name_or_path or 'tokenizer'}: found no chat template; save one with the tokenizer "
                "(chat_template.jinja) or train the model with `selfplay train`"
            )
        if not tokenizer.is_fast or tokenizer.eos_token_id is None:
            raise ModelError(
                f"{tokenizer.name_or_path or 'tokenizer'}: needs a fast tokenizer (tokenizer.json) with an eos_token "
                "that ends a turn"
            )
        self.tokenizer = tokenizer
        self.template = chosen
        self.end_of_turn_id = int(tokenizer.eos_token_id)
        end = tokenizer.convert_tokens_to_ids(END_OF_CONVERSATION)
        known = isinstance(end, int) and end != tokenizer.unk_token_id and END_OF_CONVERSATION in tokenizer.get_vocab()
        self.end_of_conversation_id: int | None = end if known and isinstance(end, int) else None
        self._pieces = lru_cache(maxsize=4096)(self._render_pieces)
        self._encoded = lru_cache(maxsize=16_384)(self._encode)
        self._backend = tokenizer.backend_tokenizer
        self._boundary = Boundary(self.encode_texts, self._after_special)
        named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        added = {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_tokens: dict[int, str] = {**named, **added}
        """Every control token by id, also those that the tokenizer has no name for."""
        self._cleans_up = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))

    @property
    def has_generation_tags(self) -> bool:
        """Whether the template marks trained text at all."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.template) is not None

    def opens_turn_of(self, role: Role) -> bool:
        """Whether the template's generation prompt opens a turn of `role`."""
        before: tuple[Role, ...] = () if role == "user" else ("user",)
        opened, _ = self._render_text(before, False, True)
        header, *_ = self._render_text((*before, role), False, False)[0].rsplit("\ue000", 1)
        return opened.rstrip(" ") == header.rstrip(" ")

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text. Special tokens written in it are split into ordinary ones."""
        return list(self._encoded(text))

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many plain texts."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of sampled ids, special tokens left out."""
        ids = list(token_ids)
        if self._cleans_up:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return str(self._backend.decode(ids, skip_special_tokens=True))

    def end_ids(self) -> list[int]:
        """The ids by which this side ends the conversation; none where it cannot."""
        return [] if self.end_of_conversation_id is None else [self.end_of_conversation_id]

    def parse_sampled(self, text: str) -> tuple[str, bool]:
        """A sampled text as what was said, and whether its words ended the conversation."""
        return text, False

    def prompt_ids(self, turns: Sequence[Turn], own_role: Role) -> list[int]:
        """Ids up to where this template opens its role's next turn.

        Sampled ids of `own_role` are kept as they are; texts of the other side may come from another tokenizer and
        are encoded here.
        """
        ids: list[int] = []
        kept: Sequence[int] | None = None
        for piece in self._pieces(tuple([turn.role for turn in turns]), False, True):
            if piece.text is not None:
                ids += piece.ids[_already_sampled(kept, piece) if kept else 0 :]
                continue
            turn = turns[piece.message]
            kept = turn.token_ids if turn.role == own_role else None
            ids += self._encoded(turn.content, piece.lead, piece.continues) if kept is None else kept
        return ids

    def render(self, conversation: Conversation) -> Rendered:
        """The whole conversation as training sees it, the end of the conversation included where it is known."""
        turns = conversation.turns
        pieces = self._pieces(tuple(turn.role for turn in turns), conversation.has_end_target, False)
        spoken = [piece for piece in pieces if piece.text is None]
        contents = self._boundary.encode(
            [(piece.lead + turns[piece.message].content, piece.continues) for piece in spoken]
        )
        ids_of = {piece.message: ids for piece, ids in zip(spoken, contents, strict=True)}
        ids: list[int] = []
        mask: list[int] = []
        learning = conversation.context == 0
        for piece in pieces:
            learning = learning or piece.message >= conversation.context
            added = piece.ids if piece.text is not None else ids_of[piece.message]
            ids.extend(added)
            given = piece.mask if piece.text is not None else [piece.mask[0]] * len(added)
            mask.extend(given if learning else [0] * len(added))
        return Rendered(ids, mask)

    def _encode(self, text: str, lead: str = "", continues: bool = False) -> tuple[int, ...]:
        """One plain text, without the set-up that a call of the tokenizer makes each time."""
        if self._boundary.matters or self._backend.padding is not None or self._backend.truncation is not None:
            return tuple(self._boundary.encode([(lead + text, continues)])[0])
        self._backend.encode_special_tokens = True
        return tuple(self._backend.encode(lead + text, add_special_tokens=False).ids)

    def _after_special(self, text: str) -> list[int]:
        """Ids of a text that follows the end-of-turn token."""
        ended = self.tokenizer(f"{self.tokenizer.eos_token}{text}", add_special_tokens=False)["input_ids"]
        return [int(id) for id in ended[1:]]

    def _render_pieces(self, roles: tuple[Role, ...], end: bool, open_turn: bool) -> tuple[_Piece, ...]:
        """Split the rendered template at its placeholders. Depends on roles only, hence cached."""
        text, spans = self._render_text(roles, end, open_turn)
        pieces: list[_Piece] = []
        position = 0
        for match in _PLACEHOLDER.finditer(text):
            glue = text[position : match.start()]
            lead = " " if glue.endswith(" ") else ""
            if stays := glue.removesuffix(" "):
                pieces.append(self._glue(stays, position, spans))
            inside = (_inside(match.start(), spans),)
            pieces.append(_Piece(None, int(match[1]), (), inside, lead, self._continues(pieces)))
            position = match.end()
        rest = text[position:].removesuffix(" ") if open_turn else text[position:]
        if rest:
            pieces.append(self._glue(rest, position, spans))
        return tuple(pieces)

    def _continues(self, pieces: list[_Piece]) -> bool:
        """Whether what follows these pieces goes on with a plain text, as the tokenizer sees it."""
        if not pieces:
            return False
        after_token = pieces[-1].ids and pieces[-1].ids[-1] in self.special_tokens
        return not after_token or self._boundary.joins_after_special

    def _glue(self, text: str, start: int, spans: list[tuple[int, int]]) -> _Piece:
        """Template text. Inside a text it is encoded behind a line break, which is then taken away again."""
        break_ = BREAK if start and self._boundary.matters else ""
        encoded = self.tokenizer(break_ + text, add_special_tokens=False, return_offsets_mapping=True)
        skip = len(self._boundary.break_ids) if break_ else 0
        offsets = [offset[0] - len(break_) for offset in encoded["offset_mapping"][skip:]]
        mask = tuple(_inside(start + offset, spans) for offset in offsets)
        return _Piece(text, -1, tuple(encoded["input_ids"][skip:]), mask)

    def _render_text(self, roles: tuple[Role, ...], end: bool, open_turn: bool) -> tuple[str, list[tuple[int, int]]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        messages: list[dict[str, Any]] = [
            {"role": role, "content": f"\ue000{number}\ue001"} for number, role in enumerate(roles)
        ]
        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                chat_template=self.template,
                return_assistant_tokens_mask=self.has_generation_tags,
                add_generation_prompt=open_turn,
                end_of_conversation=end,
                **{key: value for key, value in self.tokenizer.special_tokens_map.items() if isinstance(value, str)},
            )
        except TemplateError as error:
            raise ModelError(
                f"the chat template does not render {', '.join(roles) or 'an opening'}: {error}"
            ) from error
        return texts[0], [tuple(span) for span in spans[0]] if self.has_generation_tags else []


def _already_sampled(kept: Sequence[int], end: _Piece) -> int:
    """How many of an end's first tokens the model has sampled itself (Llama 2 ends a turn with a space and a token)."""
    trained = sum(end.mask) if end.mask and end.mask[0] else 0
    return next((n for n in range(trained - 1, 0, -1) if tuple(kept[-n:]) == end.ids[:n]), 0)


def _inside(position: int, spans: list[tuple[int, int]]) -> int:
    return int(any(start <= position < stop for start, stop in spans))
