"""A hosted assistant over /v1/chat/completions: messages in, text out. The server's own template does the rest.

Servers read control tokens in messages as control. What looks like one is sent with a space in it; the run keeps the
text as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import Usage
from selfplay.errors import RequestError
from selfplay.seeds import derive_seed
from selfplay.serve.config import Sampling
from selfplay.serve.endpoint import Endpoint
from selfplay.serve.turns import SampledTurn

_CONTROL = re.compile(r"<(?=\|[\w.:/-]+\|>|/?s>|(start|end)_of_turn>)|\[(?=/?INST\])")
"""Where texts look like control tokens of the usual templates; which one the server has is not known."""
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window)|too (many|long).{0,20}tokens|maximum.{0,20}tokens", re.IGNORECASE
)


class ChatSampler:
    """Samples assistant turns from a chat endpoint."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling, schema: Mapping[str, Any] | None = None) -> None:
        """Bind a server.

        Args:
            schema: JSON schema of what is said (`response_format`).
        """
        self._endpoint = endpoint
        self._sampling = sampling
        form = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
        self._beyond = {} if schema is None else {"response_format": form}

    async def sample(self, turns: Sequence[Turn], seed: int, attempt: int) -> SampledTurn | None:
        """The next turn, or None when the server says that the conversation no longer fits its context.

        Raises:
            RequestError: this request failed for good.
            BackendError: the server is gone or refuses everything.
        """
        body = {
            "messages": [{"role": turn.role, "content": _CONTROL.sub(r"\g<0> ", turn.content)} for turn in turns],
            "max_tokens": self._sampling.max_tokens,
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "seed": derive_seed(seed, "assistant", len(turns), attempt),
            **self._beyond,
        }
        try:
            return await self._endpoint.post("chat/completions", body, _read)
        except RequestError as error:
            if error.cause in ("http_400", "http_413", "http_422") and _TOO_LONG.search(str(error)):
                return None
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()


def _read(reply: dict[str, Any]) -> SampledTurn:
    choice = reply["choices"][0]
    content = choice["message"]["content"]
    if not isinstance(content, str | None):
        raise ValueError("content is no text")
    if choice.get("finish_reason") not in ("stop", "length", "eos", None):
        raise ValueError(f"finished for {choice['finish_reason']!r}")
    (content or "").encode()  # half a surrogate pair cannot be stored: garbage, a ValueError
    usage = reply.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    counted = Usage(int(usage.get("prompt_tokens") or 0), int(cached), int(usage.get("completion_tokens") or 0))
    turn = Turn("assistant", (content or "").strip(), "sampled")
    return SampledTurn(
        turn, counted, False, choice.get("finish_reason") == "length", counted.prompt_tokens + counted.sampled_tokens
    )
