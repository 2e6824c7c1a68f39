"""The cost of self-play beside the engine: scripted backends that answer after 50 ms, medians.

    python -m bench.speed.harness              # in process, and over HTTP; about three minutes on 2 cores

in process   ours (rendering, guardrails, scheduler, store with its flushes to disk) against a bare asyncio loop that
             awaits the same backends and stores nothing
over HTTP    ours against a bare aiohttp loop, same server (a process of its own), same routes
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp

from bench.speed.scripted import play_scripted, scripted_backends, scripted_config, scripted_speakers
from selfplay.generate.config import GenerateConfig
from selfplay.generate.participants import open_participants, resolve_sides
from selfplay.generate.plan import conversation_specs
from selfplay.generate.play import interruptible, play
from selfplay.serve.backend import GenerationRequest
from selfplay.serve.config import Sampling
from selfplay.store.store import RunStore

LATENCY = 0.05
ROUNDS = 3
PROMPT_TOKENS = 100


async def bare_loop(conversations: int, in_flight: int) -> float:
    """Conversations per second of tasks that only await the backends."""
    backends = scripted_backends(LATENCY)
    engines_by_role = asyncio.Semaphore(in_flight)

    async def hold(number: int) -> None:
        async with engines_by_role:
            for turn in range(ROUNDS):
                for backend in backends.values():
                    seed = (number * ROUNDS + turn) * 7919
                    await backend.generate(GenerationRequest([300] * PROMPT_TOKENS, Sampling(), seed, (1,)))

    return await _rate(conversations, partial(_together, hold, conversations))


async def ours(conversations: int, in_flight: int, folder: Path) -> float:
    """Conversations per second of a run."""
    config = scripted_config(conversations, ROUNDS)
    speakers = scripted_speakers(config, scripted_backends(LATENCY))
    return await _rate(conversations, partial(play_scripted, config, speakers, in_flight, folder))


async def bare_http(conversations: int, in_flight: int, url: str) -> float:
    """Conversations per second of tasks that only post and read."""
    engines_by_role = asyncio.Semaphore(in_flight)
    prompt = {"model": "scripted", "prompt": [300] * PROMPT_TOKENS, "max_tokens": 96, "stop_token_ids": [1, 5]}
    messages = {"model": "scripted", "messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 96}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def hold(number: int) -> None:
            async with engines_by_role:
                for turn in range(ROUNDS):
                    for path, body in (("completions", prompt), ("chat/completions", messages)):
                        async with session.post(f"{url}/{path}", json={**body, "seed": number + turn}) as response:
                            await response.json()

        return await _rate(conversations, partial(_together, hold, conversations))


async def ours_http(conversations: int, in_flight: int, folder: Path, url: str) -> float:
    """Conversations per second of a run whose sides are both the scripted server."""
    endpoint = {"max_concurrency": in_flight}
    config = GenerateConfig.model_validate(
        {
            "conversations": conversations, "max_rounds": ROUNDS, "max_in_flight": in_flight,
            "simulator": {
                "model": url, "endpoint": {"tokenizer": "nano", **endpoint}, "guardrails": {"repeat": False},
            },
            "assistant": {"model": url, "endpoint": endpoint},
        }
    )  # fmt: skip
    sides = resolve_sides(config)

    async def run() -> None:
        store = RunStore.create(folder, {}, conversation_specs(config))
        with interruptible() as interrupt:
            async with open_participants(config, sides, folder, lambda event: None) as cast, store:
                await play(config, store, cast, lambda event: None, interrupt)
        store.close()

    return await _rate(conversations, run)


async def _together(hold: Callable[[int], Awaitable[None]], conversations: int) -> None:
    await asyncio.gather(*map(hold, range(conversations)))


async def _rate(conversations: int, work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return conversations / (time.perf_counter() - started)


@contextmanager
def scripted_server(latency: float) -> Iterator[str]:
    """The scripted server in a process of its own; its URL."""
    command = [sys.executable, "-m", "selfplay.serve.scripted_server", "--port", "0", "--latency", str(latency)]
    with subprocess.Popen([*command, "--end-share", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def compare(conversations: int, in_flight: int, repeats: int) -> None:
    """Run everything and print the table."""
    rates: dict[str, list[float]] = {"bare asyncio loop": [], "ours": [], "bare aiohttp loop": [], "ours over HTTP": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name, scripted_server(LATENCY) as url:
            folder = Path(name)
            rates["bare asyncio loop"].append(asyncio.run(bare_loop(conversations, in_flight)))
            rates["ours"].append(asyncio.run(ours(conversations, in_flight, folder / "run")))
            rates["bare aiohttp loop"].append(asyncio.run(bare_http(conversations, in_flight, url)))
            rates["ours over HTTP"].append(asyncio.run(ours_http(conversations, in_flight, folder / "http", url)))
    medians = {name: median(values) for name, values in rates.items()}
    print(f"{conversations:,} conversations of {ROUNDS} rounds, {in_flight:,} in flight, "
          f"{LATENCY * 1000:.0f} ms a reply, medians of {repeats}\n")  # fmt: skip
    print("| harness | conversations/s | turns/s | against the bare loop |\n| --- | ---: | ---: | ---: |")
    for name, rate in medians.items():
        base = medians["bare aiohttp loop" if "HTTP" in name or "aiohttp" in name else "bare asyncio loop"]
        print(f"| {name} | {rate:,.0f} | {rate * ROUNDS * 2:,.0f} | {rate / base:.2f} |")


def main() -> None:
    """Parse and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    compare(chosen.conversations, chosen.in_flight, chosen.repeats)


if __name__ == "__main__":
    main()
