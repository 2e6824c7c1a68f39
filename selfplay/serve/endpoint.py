"""A client of an OpenAI-compatible server: JSON posts that survive what servers do.

Retried, with exponential back-off and jitter: 408, 409, 425, 429, 5xx, resets, time-outs, and replies that are empty or
not what was asked for. `Retry-After` holds back all requests, not only the one that was told. Refusals of one request
(other 4xx) fail that request; refusals of everything (key, address, model) end the run, which can be resumed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp

from selfplay.errors import BackendError, ConfigError, RequestError
from selfplay.serve.config import EndpointSettings
from selfplay.serve.limiter import AdaptiveLimit

T = TypeVar("T")
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_CONFIGURED_WRONG = {401, 402, 403, 404, 405}
_OUTAGE = 60.0
"""Seconds without any reply, on top of two time-outs, after which the server counts as gone."""
_LONGEST_PAUSE = 300.0
"""Seconds; a server that asks for more is asked again after this."""


class Endpoint:
    """One server and one model on it. Use `connect`; close when done."""

    def __init__(
        self, url: str, settings: EndpointSettings, session: aiohttp.ClientSession, key_variable: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        self.model = settings.model or ""
        self.max_context: int | None = settings.max_context
        self.limit = AdaptiveLimit(settings.max_concurrency)
        self.faults: Counter[str] = Counter()
        """Tries that did not give a reply, by cause."""
        self._settings = settings
        self._session = session
        self._key_variable = key_variable
        self._resume_at = 0.0
        self._failing_since: float | None = None
        self._random = random.Random()

    @classmethod
    async def connect(cls, url: str, settings: EndpointSettings, key_variable: str) -> Endpoint:
        """Reach the server and find the model.

        Args:
            key_variable: environment variable that holds the key; may be unset.

        Raises:
            ConfigError: no such model, or several and none named.
            BackendError: the server cannot be reached or refuses the key.
        """
        key = os.environ.get(key_variable)
        session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            connector=aiohttp.TCPConnector(limit=0),
        )
        endpoint = cls(url, settings, session, key_variable)
        try:
            await endpoint._find_model(settings.model)
        except BaseException:
            await session.close()
            raise
        return endpoint

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Send `body` and read the reply, as often as it takes.

        Args:
            read: reply → result; a KeyError, IndexError, TypeError or ValueError means garbage and another try.

        Raises:
            RequestError: this request failed for good.
            BackendError: the server refuses everything, or does not answer any more.
        """
        data = json.dumps({"model": self.model, **body}).encode()
        cause = detail = ""
        for attempt in range(self._settings.attempts):
            if attempt:
                await asyncio.sleep(self._back_off(attempt))
            ticket = await self.limit.acquire()
            refused = True
            try:
                while (pause := self._resume_at - time.monotonic()) > 0:
                    await asyncio.sleep(pause * (1 + 0.1 * self._random.random()))
                async with self._session.post(
                    f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"}
                ) as response:
                    content = await response.read()
                    refused = response.status in (429, 503, 529)
                    if response.status == 200:
                        result = read(json.loads(content))
                        self._failing_since = None
                        return result
                    cause, detail = f"http_{response.status}", content[:300].decode(errors="replace")
                    self._raise_for_status(response, detail)
            except TimeoutError:
                cause, detail = "timeout", f"no reply within {self._settings.timeout:g} s"
            except aiohttp.ClientError as error:
                cause, detail = "connection", str(error)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                cause, detail = "bad_reply", f"{type(error).__name__}: {error}"
            finally:
                self.limit.release(ticket, refused)
            self._count_fault(cause, detail)
        message = f"{self.url}: no usable reply in {self._settings.attempts} tries, the last: {cause} ({detail})"
        if await self._is_up():
            raise RequestError(message, cause)
        raise BackendError(f"{message}; the server does not answer at all: check it, then go on (self-play: --resume)")

    def _count_fault(self, cause: str, detail: str) -> None:
        """Take note of a try that gave nothing; raise when nothing has got through for a long time."""
        self.faults[cause] += 1
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > _OUTAGE + 2 * self._settings.timeout:
            minutes = (now - self._failing_since) / 60
            raise BackendError(
                f"{self.url}: nothing got through for {minutes:.0f} minutes, the last: {cause} ({detail}); check the "
                "server, then go on (self-play: --resume)"
            )

    async def _is_up(self) -> bool:
        """Whether the server answers anything at all: then a request that failed for good did so alone."""
        try:
            async with self._session.get(f"{self.url}/models", timeout=aiohttp.ClientTimeout(total=10)) as response:
                return response.status < 500
        except (TimeoutError, aiohttp.ClientError):
            return False

    def _raise_for_status(self, response: aiohttp.ClientResponse, detail: str) -> None:
        """Raise what another try cannot change; take note of when to come back."""
        status = response.status
        if status in _CONFIGURED_WRONG:
            key = f" (${self._key_variable})" if self._key_variable else ""
            raise BackendError(f"{response.url} answers {status} ({detail}); check address, model name and key{key}")
        if status not in _BUSY and status < 500:
            raise RequestError(f"{response.url} answers {status} ({detail})", f"http_{status}")
        if (seconds := _retry_after(response.headers.get("Retry-After"))) is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + min(seconds, _LONGEST_PAUSE))

    def _back_off(self, attempt: int) -> float:
        longest = min(60.0, self._settings.first_delay * 2.0 ** (attempt - 1))
        return longest * self._random.uniform(0.5, 1.0)

    async def _find_model(self, asked: str | None) -> None:
        """Ask what the server serves. One that has no such list is believed if a model is named."""
        listed = await self._list_models()
        names = [str(entry.get("id")) for entry in listed]
        if asked is None and len(names) != 1:
            known = f"it lists {', '.join(names[:8])}" if names else "it lists none"
            raise ConfigError(
                f"{self.url}: which model? {known}; name one with --assistant-model, --simulator-model or --judge-model"
            )
        if asked is not None and names and asked not in names:
            raise ConfigError(f"{self.url}: no model {asked!r}; it lists {', '.join(names[:8])}")
        self.model = asked or names[0]
        for entry in listed:
            length = entry.get("max_model_len")
            if entry.get("id") == self.model and self.max_context is None and isinstance(length, int):
                self.max_context = length

    async def _list_models(self) -> list[dict[str, Any]]:
        for attempt in range(self._settings.attempts):
            if attempt:
                await asyncio.sleep(self._back_off(attempt))
            try:
                async with self._session.get(f"{self.url}/models") as response:
                    if response.status in (401, 403):
                        raise BackendError(
                            f"{self.url} answers {response.status}; put its key into ${self._key_variable}"
                        )
                    if response.status == 200:
                        listed = json.loads(await response.read())["data"]
                        return [entry for entry in listed if isinstance(entry, dict)]
                    if response.status not in _BUSY:
                        return []
                    cause = f"it answers {response.status}"
            except aiohttp.InvalidURL as error:
                raise ConfigError(f"{self.url}: not a URL; expected one like http://127.0.0.1:8000/v1") from error
            except (TimeoutError, aiohttp.ClientError) as error:
                cause = str(error) or "time-out"
            except (KeyError, TypeError, ValueError, AttributeError):
                cause = "its reply is not a list of models"
        raise BackendError(f"{self.url}: cannot list models ({cause}); is it an OpenAI-compatible server, and up?")


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
