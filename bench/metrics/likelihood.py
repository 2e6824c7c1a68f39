"""Likelihood of human turns under a model, and the probability that it ends a conversation; one pass gives both.

bits per byte   sum of -log2 p over a role's tokens, ends of turns included, over the UTF-8 bytes of its text. Does not
                depend on the tokenizer, so models can be compared. The end of the conversation is left out: it has no
                bytes, and models end in different ways.
perplexity      exp of the mean -ln p over the same tokens. Of one tokenizer only.
p(end)          probability of ending the conversation where a user turn opens, after temperature and nucleus (no end
                bias): of <|endconversation|>, or of a prompted user's words for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import Conversation, Role
from selfplay.chat.models import load_renderer
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ModelError
from selfplay.serve.config import Sampling

if TYPE_CHECKING:
    import torch

_LOGITS = 1 << 25
"""Logits held at once: tokens of a batch × vocabulary."""
_WORTH_A_LOOK = 1e-3
"""Words for the end whose first token is less likely than this are not looked at further; p(end) is then 0."""


@dataclass(slots=True)
class RoleScore:
    """Per conversation: bits, bytes and tokens of one role, and p(end) at every user turn after the first.

    `ends[s][i]` has, for sampling s, one value per decision of conversation i: K for a whole conversation of K rounds,
    its last one the end people chose. Decisions beyond the context are missing.
    """

    bits: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    """Whether the conversation fits the model's context; others are scored up to it."""
    ends: list[list[list[float]]] = field(default_factory=list)

    @property
    def cut(self) -> int:
        """Conversations longer than the model's context."""
        return self.whole.count(False)


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation to be scored: ids and mask (T,), and the positions at which user turns open."""

    number: int
    ids: list[int]
    mask: list[int]
    opened: list[int]


class Scorer:
    """A model folder ready to score conversations: in float32 on a CPU, in its own precision on a GPU."""

    def __init__(self, folder: Path, load: Callable[[Path, Role], ChatRenderer] = load_renderer) -> None:
        """Load the model.

        Args:
            load: the folder's renderer for a role; prompted users have one of their own.

        Raises:
            ModelError: no model that can be read, or a tokenizer with more tokens than the model has embeddings.
        """
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._folder, self._load = folder, load
        on_gpu = torch.cuda.is_available()
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if on_gpu else torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: no model that can be read ({error})") from error
        self._model: Any = model.to("cuda" if on_gpu else "cpu").eval()

    def renderer(self, role: Role) -> ChatRenderer:
        """The folder's renderer for a role, its tokens known to the model.

        Raises:
            ModelError: see `load_renderer`; or more tokens than the model has embeddings.
        """
        renderer = self._load(self._folder, role)
        tokens, embedded = len(renderer.tokenizer), self._model.get_input_embeddings().weight.shape[0]
        if tokens > embedded:
            raise ModelError(
                f"{self._folder}: its tokenizer has {tokens:,} tokens and the model {embedded:,} embeddings; they do "
                "not belong together. Use the tokenizer the model was saved with"
            )
        return renderer

    def score(self, conversations: Sequence[Conversation], role: Role, samplings: Sequence[Sampling] = ()) -> RoleScore:
        """Score one role's turns, and its end decisions under each of `samplings` (role user only)."""
        import torch

        renderer = self.renderer(role)
        limit = int(getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
        n = len(conversations)
        score = RoleScore([0.0] * n, [0] * n, [0] * n, [True] * n, [[[] for _ in range(n)] for _ in samplings])
        rows = []
        for number, conversation in enumerate(conversations):
            ids, mask = _without_end(renderer, conversation, role)
            score.whole[number] = len(ids) <= limit
            opened = _opened(renderer, conversation) if samplings else []
            opened = [position for position in opened if position <= min(len(ids), limit)]
            rows.append(_Row(number, ids[:limit], mask[:limit], opened))
            learned = [turn.content for turn in conversation.turns[conversation.context :] if turn.role == role]
            score.bytes[number] = _bytes(learned, rows[-1], not score.whole[number], renderer)
            score.tokens[number] = sum(mask[1:limit])
        for row, log_probs in self._log_probs(rows):
            targets = torch.tensor(row.ids[1:], device=log_probs.device)
            picked = log_probs[:-1].gather(1, targets[:, None])[:, 0]
            trained = torch.tensor(row.mask[1:], device=log_probs.device, dtype=torch.bool)
            score.bits[row.number] = float(-picked[trained].double().sum()) / math.log(2)
            before = [position - 1 for position in row.opened]
            for ends, sampling in zip(score.ends, samplings, strict=True):
                ends[row.number] = self._ends(row, log_probs[before], renderer, sampling)
        return score

    def _log_probs(self, rows: Sequence[_Row]) -> Iterator[tuple[_Row, torch.Tensor]]:
        """Rows with the log-probabilities of the next token at each of their positions, (T, V), in any order."""
        import torch

        per_batch = max(1, _LOGITS // int(self._model.get_input_embeddings().weight.shape[0]))
        for batch in _batches(rows, per_batch):
            width = max(len(row.ids) for row in batch)
            # Padding is on the right: under causal attention no real token sees it.
            ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch], device=self._model.device)
            with torch.inference_mode():
                logits = self._model(input_ids=ids, use_cache=False).logits
                for number, row in enumerate(batch):
                    yield row, torch.log_softmax(logits[number, : len(row.ids)].float(), dim=-1)

    def _ends(self, row: _Row, log_probs: torch.Tensor, renderer: ChatRenderer, sampling: Sampling) -> list[float]:
        """p(end) at each opened turn; (D, V) log-probabilities to D values."""
        first, *more = renderer.end_ids()
        p_end = probabilities(log_probs, first, sampling)
        for number, position in enumerate(row.opened):
            if more and p_end[number] >= _WORTH_A_LOOK:
                words = _Row(0, [*row.ids[:position], first, *more], [], [])
                ((_, after),) = self._log_probs([words])
                for step, id in enumerate(more):
                    p_end[number] *= probabilities(after[position + step][None], id, sampling)[0]
            elif more:
                p_end[number] = 0.0
        return p_end


def probabilities(log_probs: torch.Tensor, id: int, sampling: Sampling) -> list[float]:
    """p(id) under temperature and nucleus sampling (Holtzman et al., arXiv:1904.09751). Shape in (D, V), out D."""
    import torch

    probs = torch.softmax(log_probs / max(sampling.temperature, 1e-6), dim=-1)
    if sampling.top_p >= 1:
        return [float(p) for p in probs[:, id]]
    ordered, order = probs.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
    kept = torch.zeros_like(probs).scatter(1, order, ordered.masked_fill(outside, 0.0))
    return [float(p) for p in kept[:, id] / kept.sum(dim=-1)]


def _opened(renderer: ChatRenderer, conversation: Conversation) -> list[int]:
    """Positions at which the user may speak or end, after each of the assistant's turns."""
    turns = conversation.turns
    after = [number + 1 for number, turn in enumerate(turns) if turn.role == "assistant"]
    if not conversation.has_end_target:  # the last answer of a cut conversation was followed by nobody knows what
        after = [number for number in after if number < len(turns)]
    return [len(renderer.prompt_ids(turns[:number], "user")) for number in after]


def _without_end(renderer: ChatRenderer, conversation: Conversation, role: Role) -> tuple[list[int], list[int]]:
    """Ids and mask up to where the user could speak again; what ends the conversation is not part of the text."""
    ids, mask = renderer.render(conversation)
    if role == "user" and conversation.has_end_target:
        stop = len(renderer.prompt_ids(conversation.turns, "user"))
        return ids[:stop], mask[:stop]
    return ids, mask


def _batches(rows: Sequence[_Row], tokens: int) -> Iterator[list[_Row]]:
    """Rows of like length together, at most `tokens` a batch with their padding, or one row."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if batch and (len(batch) + 1) * len(row.ids) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _bytes(texts: list[str], row: _Row, cut: bool, renderer: ChatRenderer) -> int:
    """Bytes of the role's text within the context."""
    if not cut:
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    kept = [id for id, on in zip(row.ids, row.mask, strict=True) if on]
    return len(renderer.decode(kept).encode("utf-8", "surrogatepass"))
