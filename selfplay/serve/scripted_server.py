"""An OpenAI-compatible server without a model: fixed replies after a latency, with faults to order.

    python -m selfplay.serve.scripted_server --port 8000 --latency 0.05 --faults 0.3

For tests, benchmarks and dry runs of an endpoint's settings. A reply depends on its request alone; faults fall on
requests in turn, so each kind occurs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from aiohttp import web

Reply = Callable[[dict[str, Any]], str]
FAULTS = ("429", "500", "503", "reset", "timeout", "empty", "garbage", "shape")


class ScriptedServer:
    """Request handlers and what they counted. `start` listens on 127.0.0.1."""

    def __init__(
        self, *, reply: Reply | None = None, latency: float = 0.0, faults: float = 0.0, stall: float = 30.0,
        end_share: float = 0.2, retry_after: str = "0", capacity: int | None = None,
    ) -> None:  # fmt: skip
        """Make a server.

        Args:
            reply: request body → text; default one of a few sentences.
            latency: seconds each reply takes.
            faults: share of requests answered by one of `FAULTS`, in turn.
            stall: seconds a "timeout" fault keeps silent.
            end_share: share of completions that end the conversation (the second stop token, or no text).
            retry_after: header sent with 429.
            capacity: requests at once beyond which it answers 429.
        """
        self._reply = reply or _sentence
        self._latency = latency
        self._faults = faults
        self._stall = stall
        self._end_share = end_share
        self._retry_after = retry_after
        self._capacity = capacity
        self._random = random.Random(0)
        self._kinds = itertools.cycle(FAULTS)
        self._runner: web.AppRunner | None = None
        self.busy = self.most_busy = 0
        self.counts: Counter[str] = Counter()
        """Requests by what they were answered with: ok, or a fault's name."""

    async def start(self, port: int = 0) -> str:
        """Listen; returns the address to give as a URL."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/v1/completions", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=4096)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stop listening and drop what is open."""
        if self._runner is not None:
            await self._runner.shutdown()
            await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": "scripted", "max_model_len": 4096}]})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            body = await request.json()
            if self._capacity is not None and self.busy > self._capacity:
                return self._fail("429", request)
            if self._random.random() < self._faults:
                fault = next(self._kinds)
                if fault == "timeout":
                    self.counts[fault] += 1
                    await asyncio.sleep(self._stall)
                    return web.Response(status=504)
                return self._fail(fault, request)
            if self._latency:
                await asyncio.sleep(self._latency)
            self.counts["ok"] += 1
            chat = request.path.endswith("chat/completions")
            return web.Response(text=json.dumps(self._answer(body, chat)), content_type="application/json")
        finally:
            self.busy -= 1

    def _fail(self, fault: str, request: web.Request) -> web.StreamResponse:
        self.counts[fault] += 1
        if fault == "reset" and request.transport is not None:
            request.transport.abort()
        if fault == "429":
            return web.Response(status=429, headers={"Retry-After": self._retry_after}, text="slow down")
        if fault in ("500", "503"):
            return web.Response(status=int(fault), text="<html>try later</html>")
        return web.Response(text={"garbage": '{"choices": [', "shape": '{"choices": []}'}.get(fault, ""))

    def _answer(self, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        prompt = body["messages"] if chat else body["prompt"]
        usage = {
            "prompt_tokens": len(prompt) if isinstance(prompt, list) and not chat else len(json.dumps(prompt)) // 4
        }
        text = self._reply(body)
        usage["completion_tokens"] = len(text.split())
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            ends = len(prompt) > 30 and _hashed(body) % 1000 < 1000 * self._end_share
            choice |= {"text": "" if ends else text}
            stops = body.get("stop_token_ids") or [0]
            choice["token_ids"] = [stops[-1]] if ends else [*(300 + number for number in range(8)), stops[0]]
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "scripted", "object": kind, "model": "scripted", "choices": [choice], "usage": usage}


def _hashed(body: dict[str, Any]) -> int:
    return int.from_bytes(blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=4).digest())


def _sentence(body: dict[str, Any]) -> str:
    sentences = ("That sounds good to me.", "Which day do you have in mind?", "I have found three of them for you.")
    return sentences[_hashed(body) % len(sentences)]


async def serve(server: ScriptedServer, port: int) -> None:
    """Serve until cancelled."""
    print(await server.start(port), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each reply takes")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--reply", default=None, help="what it always says; left out, one of a few sentences")
    parser.add_argument("--end-share", type=float, default=0.2, help="share of completions that end the conversation")
    chosen = parser.parse_args()
    reply = None if chosen.reply is None else lambda body: str(chosen.reply)
    server = ScriptedServer(reply=reply, latency=chosen.latency, faults=chosen.faults, end_share=chosen.end_share)
    asyncio.run(serve(server, chosen.port))


if __name__ == "__main__":
    main()
