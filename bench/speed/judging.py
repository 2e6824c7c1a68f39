"""Answers and verdicts against what carries them: one batch on the engine, a bare client loop on the server.

    python -m bench.speed.judging answers --data FOLDER     # MT-Bench on the embedded assistant; a few minutes
    python -m bench.speed.judging verdicts                  # 1,000 judgments, a server of 100 ms, 64 at once

answers     what the benchmark spends on the 80 x 2 questions, its files included, against the prompts that it sent, all
            handed to the same engine at once; the prefix cache is emptied before each
verdicts    judging 1,000 answers, files included, against `AsyncOpenAI` in an asyncio loop with a semaphore of 64 that
            sends the same messages and throws the replies away; the server runs in a process of its own
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.assistant.answers import answer_all
from bench.assistant.jsonl import open_locked
from bench.assistant.judge import Judging, judge_all
from bench.assistant.matches import Match
from bench.assistant.sets import open_set
from bench.assistant.verdicts import RATING
from selfplay.errors import BackendError
from selfplay.serve.backend import Backend, Completion, GenerationRequest, KvCache
from selfplay.serve.chat_model import EngineModel, open_model
from selfplay.serve.config import EndpointSettings
from selfplay.serve.supervised import SupervisedBackend
from selfplay.serve.vllm_backend import VllmBackend

JUDGMENTS, AT_ONCE, LATENCY = 1000, 64, 0.1


@dataclass(slots=True)
class Recorder:
    """A backend that remembers what it was asked."""

    inner: Backend
    requests: list[GenerationRequest] = field(default_factory=list)

    @property
    def max_context(self) -> int:
        """As the engine's."""
        return self.inner.max_context

    @property
    def kv(self) -> KvCache | None:
        """As the engine's."""
        return self.inner.kv

    async def generate(self, request: GenerationRequest) -> Completion:
        """Remember and pass on."""
        self.requests.append(request)
        return await self.inner.generate(request)

    async def close(self) -> None:
        """Nothing of its own."""


async def answers(data: str, repeats: int, max_tokens: int) -> None:
    """Print the table of answers."""
    files = open_set("mt-bench", data)
    questions = files.questions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_model("nano", "nano", EndpointSettings(), "", folder) as model:
            assert isinstance(model, EngineModel)
            recorder = Recorder(model.backend)
            recorded = EngineModel("nano", recorder, model.renderer)
            ours, batch = [], []
            for run in range(repeats + 1):  # the first one warms up
                await _forget(model.backend)
                recorder.requests.clear()
                with open_locked(folder / f"{run}.jsonl") as file:
                    began = time.perf_counter()
                    await answer_all(files.set, questions, file, recorded, repeats=1, max_tokens=max_tokens, seed=0)
                    ours.append(time.perf_counter() - began)
                await _forget(model.backend)
                began = time.perf_counter()
                await asyncio.gather(*map(model.backend.generate, recorder.requests))
                batch.append(time.perf_counter() - began)
    print(f"80 x 2 questions, answers of at most {max_tokens} tokens, median of {repeats} runs\n")
    print("| | seconds | ratio to the batch |\n| --- | ---: | ---: |")
    for what, seconds in (("one batch", median(batch[1:])), ("selfplay bench mt-bench", median(ours[1:]))):
        print(f"| {what} | {seconds:.1f} | {seconds / median(batch[1:]):.2f} |")


async def _forget(backend: Backend) -> None:
    engine: Any = backend._engine if isinstance(backend, SupervisedBackend) else backend
    assert isinstance(engine, VllmBackend)
    await engine.forget()


async def verdicts(repeats: int) -> None:
    """Print the table of verdicts."""
    command = [sys.executable, "-m", "selfplay.serve.scripted_server", "--port", "0", "--latency", str(LATENCY)]
    server = await asyncio.create_subprocess_exec(*command, "--reply", "Rating: [[7]]", stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    url = (await server.stdout.readline()).decode().strip()
    matches = [
        Match(n, ("m",), 1, 0, "single-v1", RATING, "You are a judge.", (f"[Question] {n}\n" + "An answer. " * 150,))
        for n in range(JUDGMENTS)
    ]
    try:
        ours, bare = [], []
        for _ in range(repeats):
            ours.append(await _ours(url, matches))
            bare.append(await _bare(url, matches))
    finally:
        server.terminate()
        await server.wait()
    print(f"{JUDGMENTS:,} judgments, {LATENCY * 1000:.0f} ms each, {AT_ONCE} at once, median of {repeats} runs\n")
    print("| | seconds | judgments/s | ratio to the bare loop |\n| --- | ---: | ---: | ---: |")
    for what, seconds in (("AsyncOpenAI, bare loop", median(bare)), ("selfplay's judge", median(ours))):
        print(f"| {what} | {seconds:.2f} | {JUDGMENTS / seconds:,.0f} | {median(bare) / seconds:.2f} |")


async def _ours(url: str, matches: Sequence[Match]) -> float:
    settings = EndpointSettings(max_concurrency=AT_ONCE)
    with tempfile.TemporaryDirectory() as name:
        async with open_model(url, None, settings, "", Path(name)) as judge:
            with open_locked(Path(name) / "judge_single.jsonl") as file:
                began = time.perf_counter()
                done = await judge_all(matches, file, judge, Judging())
                seconds = time.perf_counter() - began
    if done.unjudged:
        raise BackendError(f"some judgments failed: {dict(done.unjudged)}")
    return seconds


async def _bare(url: str, matches: Sequence[Match]) -> float:
    from openai import AsyncOpenAI

    slots = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(match: Match) -> None:
            messages: Any = [
                {"role": "system", "content": match.system},
                {"role": "user", "content": match.asked[0]},
            ]
            async with slots:
                await client.chat.completions.create(
                    model="scripted", messages=messages, temperature=0, max_tokens=2048
                )

        began = time.perf_counter()
        await asyncio.gather(*map(ask, matches))
        return time.perf_counter() - began


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("answers", "verdicts"))
    parser.add_argument("--data", default=None, help="FastChat's data folder; or $SELFPLAY_BENCH_DATA")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=256)
    chosen = parser.parse_args()
    if chosen.what == "answers":
        asyncio.run(answers(chosen.data, chosen.repeats, chosen.max_tokens))
    else:
        asyncio.run(verdicts(chosen.repeats))


if __name__ == "__main__":
    main()
