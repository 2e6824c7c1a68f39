"""Self-play against the engine's own limit, with real vLLM engines and the embedded pair.

    python -m bench.speed.engine                    # both cases, five runs each: about 40 minutes on 2 cores
    python -m bench.speed.engine --case scarce --repeats 1

A first self-play run is recorded; every contender then makes the same requests (prompt ids, seeds), so the tokens are
identical, which is checked. The engines stay up, their prefix caches are emptied before each run.

self-play      scheduler, rendering, guardrails, store: everything `selfplay generate` does
bare loop      the recorded requests in an asyncio loop without any of it, conversations in flight swept by hand
all at once    all recorded requests handed over together, as if they were independent: in the order the run made them,
               and conversation by conversation, where requests that share a prefix run side by side
lock-step      all conversations take their turn together, then the other side: how batch pipelines do it
transformers   one conversation after another with `generate`, over the first few
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from selfplay.chat.conversation import Role
from selfplay.chat.models import RoleModel
from selfplay.generate import participants as sides
from selfplay.generate.config import GenerateConfig
from selfplay.generate.plan import conversation_specs
from selfplay.generate.play import MOST_IN_FLIGHT
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import EngineBudget, Scheduler
from selfplay.recipe import load_recipe
from selfplay.serve.backend import Backend, Completion, GenerationRequest, KvCache
from selfplay.serve.vllm_backend import VllmBackend
from selfplay.store.store import RunStore

CASES = {"ample": None, "scarce": 480}
"""KV blocks of 32 tokens for each engine: 1 GiB, and room for about 30 conversations of 500 tokens."""
CAPS = (8, 16, 24, 32, 40, 48, 64, 96, 128)
ROLES: tuple[Role, Role] = ("user", "assistant")


@dataclass(slots=True)
class Recorder:
    """A backend that remembers what each conversation asked; conversations are told apart by the running task."""

    engine: VllmBackend
    role: Role
    asked: dict[str, list[tuple[Role, GenerationRequest, Completion]]]
    max_context: int = field(init=False)
    kv: KvCache | None = field(init=False)

    def __post_init__(self) -> None:
        self.max_context = self.engine.max_context
        self.kv = self.engine.kv

    async def generate(self, request: GenerationRequest) -> Completion:
        """Ask and remember."""
        completion = await self.engine.generate(request)
        task = asyncio.current_task()
        assert task is not None
        self.asked.setdefault(task.get_name(), []).append((self.role, request, completion))
        return completion

    async def close(self) -> None:
        """The engine is closed by whoever started it."""


Recording = list[list[tuple[Role, GenerationRequest, Completion]]]


async def measure(case: str, conversations: int, repeats: int, caps: Sequence[int]) -> None:
    """Run one case and print its table."""
    config = load_recipe("nano/generate", GenerateConfig, {"conversations": conversations})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = sides.resolve_sides(config)
        groups = sides.engine_specs(config, both, folder)
        specs = [replace(spec, kv_blocks=CASES[case]) for group in groups.values() for spec in group]
        engines = dict(zip(ROLES, await asyncio.gather(*map(VllmBackend.start, specs)), strict=True))
        try:
            await _measure(case, config, folder, both, engines, repeats, caps)
        finally:
            await asyncio.gather(*(engine.close() for engine in engines.values()))


async def _measure(
    case: str, config: GenerateConfig, folder: Path, both: Sequence[RoleModel], engines: dict[Role, VllmBackend],
    repeats: int, caps: Sequence[int],
) -> None:  # fmt: skip
    asked: dict[str, list[tuple[Role, GenerationRequest, Completion]]] = {}
    recorders: dict[Role, Backend] = {role: Recorder(engine, role, asked) for role, engine in engines.items()}
    await self_play(config, both, recorders, folder / "recorded")
    recording = list(asked.values())
    turns = sum(map(len, recording))
    tokens = sum(len(completion.token_ids) + 1 for rows in recording for _, _, completion in rows)
    kv = engines["user"].kv
    print(f"\n{case}: {len(recording)} conversations, {turns:,} requests, {tokens:,} tokens sampled, "
          f"{kv.capacity:,} KV tokens for each side, {os.cpu_count()} cores, medians of {repeats}")  # fmt: skip

    async def clock(work: Callable[[], Awaitable[object]]) -> float:
        await asyncio.gather(*(engine.forget() for engine in engines.values()))
        started = time.perf_counter()
        await work()
        return time.perf_counter() - started

    sweep = {cap: await clock(partial(bare, engines, recording, cap)) for cap in caps if cap <= len(recording)}
    best = min(sweep, key=sweep.__getitem__)
    print("bare loop by conversations in flight: " + ", ".join(f"{cap}: {s:.1f} s" for cap, s in sweep.items()))
    hits: dict[str, float] = {}

    async def ours(number: int) -> None:
        hits["self-play"] = await self_play(config, both, dict(engines), folder / f"run-{number}")

    in_order = [[rows[step]] for step in range(max(map(len, recording))) for rows in recording if step < len(rows)]
    names = [
        "self-play",
        f"bare loop, {best} in flight",
        "all at once, by conversation",
        "all at once, in order",
        "lock-step",
    ]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        seconds[names[0]].append(await clock(partial(ours, number)))
        seconds[names[1]].append(await clock(partial(bare, engines, recording, best, hits, names[1])))
        seconds[names[2]].append(await clock(partial(all_at_once, engines, recording, hits, names[2])))
        seconds[names[3]].append(await clock(partial(all_at_once, engines, in_order, hits, names[3])))
        seconds[names[4]].append(await clock(partial(lock_step, engines, recording, hits, names[4])))
    medians = {name: median(values) for name, values in seconds.items()}
    limit = min(medians[name] for name in names[1:4])
    ours_took = medians[names[0]]
    print("\n| " + case + " | s | turns/s | tok/s | cache hit | engine limit ÷ its time |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, value in medians.items():
        print(f"| {name} | {value:.1f} | {turns / value:.1f} | {tokens / value:,.0f} | {hits[name]:.0%} "
              f"| {limit / value:.2f} |")  # fmt: skip
    against = {"bare loop": names[1], "all at once by conversation": names[2], "all at once in order": names[3]}
    ratios = ", ".join(f"{key}: {medians[name] / ours_took:.3f}" for key, name in against.items())
    print(f"\nefficiency against {ratios}; {medians[names[4]] / ours_took:.2f} times as fast as lock-step")
    if case == "ample":
        rate = one_by_one(both, recording[:6])
        print(f"transformers, one conversation after another: {rate:.1f} turns/s, "
              f"{turns / medians[names[0]] / rate:.1f} times slower")  # fmt: skip


async def self_play(
    config: GenerateConfig, both: Sequence[RoleModel], engines: dict[Role, Backend], folder: Path
) -> float:
    """The real thing, except that the engines are up already. Returns the share of prompt tokens found cached."""
    budgets, speakers = [], {}
    for number, side in enumerate(both):
        engine = engines[side.role]
        assert engine.kv is not None
        budgets.append(EngineBudget(engine.kv.capacity, engine.kv.block, engine.max_context))
        speakers[side.role] = {number: sides.speaker(config, side.role, sides.turn_sampler(config, side, engine))}
    store = RunStore.create(folder, {}, conversation_specs(config))
    scheduler = Scheduler(budgets, {"user": [0], "assistant": [1]}, MOST_IN_FLIGHT)
    async with store:
        runner = Runner(speakers, store, scheduler, config.max_rounds, lambda event: None)
        await runner.run(store.unfinished())
    hit = store.totals().usage.cache_hit
    store.close()
    return hit


class Hits:
    """Counts cached prompt tokens and checks that a contender samples what was recorded."""

    def __init__(self) -> None:
        self.cached = self.prompt = 0

    async def ask(self, engines: dict[Role, VllmBackend], row: tuple[Role, GenerationRequest, Completion]) -> None:
        """Make one recorded request."""
        role, request, expected = row
        completion = await engines[role].generate(request)
        assert completion.token_ids == expected.token_ids, "other tokens than recorded: not the same work"
        self.cached += completion.cached_tokens
        self.prompt += completion.prompt_tokens


async def bare(
    engines: dict[Role, VllmBackend], recording: Recording, cap: int, hits: dict[str, float] | None = None,
    name: str = "",
) -> None:  # fmt: skip
    """Conversations in an asyncio loop, `cap` at once."""
    slots, counted = asyncio.Semaphore(cap), Hits()

    async def hold(rows: list[tuple[Role, GenerationRequest, Completion]]) -> None:
        async with slots:
            for row in rows:
                await counted.ask(engines, row)

    await asyncio.gather(*map(hold, recording))
    if hits is not None:
        hits[name] = counted.cached / counted.prompt


async def all_at_once(
    engines: dict[Role, VllmBackend], recording: Recording, hits: dict[str, float], name: str
) -> None:
    """Every request at the same time."""
    counted = Hits()
    await asyncio.gather(*(counted.ask(engines, row) for rows in recording for row in rows))
    hits[name] = counted.cached / counted.prompt


async def lock_step(engines: dict[Role, VllmBackend], recording: Recording, hits: dict[str, float], name: str) -> None:
    """The first request of all conversations, then the second of all, and so on."""
    counted = Hits()
    for step in range(max(map(len, recording))):
        await asyncio.gather(*(counted.ask(engines, rows[step]) for rows in recording if step < len(rows)))
    hits[name] = counted.cached / counted.prompt


def one_by_one(both: Sequence[RoleModel], recording: Recording) -> float:
    """Turns per second of Transformers' `generate`, a conversation at a time, with the recorded lengths."""
    import torch
    from transformers import AutoModelForCausalLM

    models = {side.role: AutoModelForCausalLM.from_pretrained(side.folder, dtype=torch.float32) for side in both}
    started, turns = time.perf_counter(), 0
    for rows in recording:
        for role, request, completion in rows:
            length = len(completion.token_ids) + 1
            prompt = torch.tensor([request.prompt_ids])
            models[role].generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_k=0,
                min_new_tokens=length, max_new_tokens=length, pad_token_id=0,
            )  # fmt: skip
            turns += 1
    return turns / (time.perf_counter() - started)


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=tuple(CASES), action="append", help="default: both")
    parser.add_argument("--conversations", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--caps", type=int, nargs="+", default=CAPS, help="bare loop: conversations in flight to try")
    chosen = parser.parse_args()
    for case in chosen.case or CASES:
        asyncio.run(measure(case, chosen.conversations, chosen.repeats, chosen.caps))


if __name__ == "__main__":
    main()
