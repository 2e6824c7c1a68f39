"""A served model as a Backend, over /v1/completions.

token ids   vLLM and what follows it: prompts are lists of ids, replies bring the sampled ids (`return_token_ids`).
            Histories stay exact, as in process.
text        any other server: the ids are written out as text, and special tokens that a person or a model wrote are
            broken up, since the server would read them as control. What comes back is encoded here, so a history may
            differ in its ids from what the server sampled. A turn without a word counts as the end of the conversation:
            such servers stop at the end token without saying so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from selfplay.chat.rendering import ChatRenderer
from selfplay.serve.backend import Completion, GenerationRequest, KvCache
from selfplay.serve.endpoint import Endpoint

_UNKNOWN_CONTEXT = 8192
"""Tokens, where neither server nor settings tell."""


class _Served:
    """What both have in common: an endpoint behind them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    @property
    def max_context(self) -> int:
        """Longest prompt plus completion, in tokens."""
        return self._endpoint.max_context or _UNKNOWN_CONTEXT

    @property
    def kv(self) -> KvCache | None:
        """Servers do not tell."""
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()


class TokenCompletions(_Served):
    """Token ids in, token ids out."""

    async def generate(self, request: GenerationRequest) -> Completion:
        """Sample one turn; see `Backend.generate`."""
        body = _sampling(request) | {
            "prompt": request.prompt_ids,
            "stop_token_ids": list(request.stop_ids),
            "logit_bias": {str(id): value for id, value in request.logit_bias} or None,
            "return_token_ids": True,
        }

        def read(reply: dict[str, Any]) -> Completion:
            choice = reply["choices"][0]
            ids = tuple(map(int, choice["token_ids"]))
            stopped = _stopped(choice)
            if stopped and (not ids or ids[-1] not in request.stop_ids):
                raise ValueError("stopped, but not at a stop token")
            prompt, cached = _usage(reply)
            return Completion(
                ids[:-1] if stopped else ids, "stop" if stopped else "length", ids[-1] if stopped else None,
                prompt or len(request.prompt_ids), cached,
            )  # fmt: skip

        return await self._endpoint.post("completions", body, read)


class TextCompletions(_Served):
    """Token ids in, through text, token ids out."""

    def __init__(self, endpoint: Endpoint, renderer: ChatRenderer) -> None:
        super().__init__(endpoint)
        self._renderer = renderer
        self._special = renderer.special_tokens
        longest_first = sorted(self._special.values(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))

    async def generate(self, request: GenerationRequest) -> Completion:
        """Sample one turn; see `Backend.generate`."""
        stops = [self._renderer.tokenizer.decode([id]) for id in request.stop_ids]
        body = _sampling(request) | {"prompt": "".join(self._written(request.prompt_ids)), "stop": stops}
        end = self._renderer.end_of_conversation_id

        def read(reply: dict[str, Any]) -> Completion:
            choice = reply["choices"][0]
            text = self._control.sub("", choice["text"]).strip()
            text.encode()  # half a surrogate pair cannot be stored: garbage, a ValueError
            stopped = _stopped(choice)
            ids = tuple(self._renderer.encode_text(text))
            stop_id = None
            if stopped:
                stop_id = end if end in request.stop_ids and not ids else request.stop_ids[0]
            prompt, cached = _usage(reply)
            return Completion(ids, "stop" if stopped else "length", stop_id, prompt or len(request.prompt_ids), cached)

        return await self._endpoint.post("completions", body, read)

    def _written(self, ids: Sequence[int]) -> Iterator[str]:
        """The prompt as text: control tokens as they are, what only looks like one with a space in it."""
        decode = self._renderer.tokenizer.decode
        for special, run in groupby(ids, key=self._special.__contains__):
            text = decode(list(run), skip_special_tokens=False)
            yield text if special else self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _stopped(choice: dict[str, Any]) -> bool:
    """Whether a turn came to its end rather than to the token limit; anything else is no turn."""
    reason = choice["finish_reason"]
    if reason not in ("stop", "length", "eos_token", "stop_sequence"):
        raise ValueError(f"finished for {reason!r}")
    return bool(reason != "length")


def _sampling(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
    }


def _usage(reply: dict[str, Any]) -> tuple[int, int]:
    """Prompt tokens and how many of them came from the server's prefix cache; zeros where it does not tell."""
    usage = reply.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    return int(usage.get("prompt_tokens") or 0), int(details.get("cached_tokens") or 0)
