"""The engine process: one vLLM engine, fed and read as JSON lines of token ids over standard input and output.

Two in-process engines stepped from two threads of one process returned wrong tokens, so each engine is a process.
Started by `vllm_backend.py`; `sys.argv[1]` holds the engine arguments as JSON.

in   {"id", "prompt": [ids], "seed", "temperature", "top_p", "max_tokens", "stop": [ids], "bias": {id: value},
     "schema": JSON schema or null}
out  {"ready": max_model_len, "blocks", "block"}, then per request {"id", "ids", "stop", "prompt", "cached", "free"}
     or {"id", "error"}; "free" counts KV blocks no running request holds
also {"id", "forget"} empties the prefix cache and is answered {"id", "forgot"}
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO


def main() -> None:
    """Serve requests until standard input closes. An interrupt from the terminal is for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print must not reach the protocol
    inbox: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(inbox,), daemon=True).start()

    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = LLMEngine.from_engine_args(EngineArgs(**json.loads(sys.argv[1])))
    cache = engine.vllm_config.cache_config
    kv = {"blocks": cache.num_gpu_blocks - 1, "block": cache.block_size}  # vLLM keeps one block for itself
    _reply(replies, {"ready": engine.model_config.max_model_len, **kv})
    _serve(engine, inbox, replies)
    replies.close()
    os._exit(0)  # interpreter shutdown under vLLM takes seconds and has nothing left to save


def _read(inbox: queue.Queue[str | None]) -> None:
    for line in sys.stdin:
        inbox.put(line)
    inbox.put(None)


def _serve(engine: Any, inbox: queue.Queue[str | None], replies: TextIO) -> None:
    """Take everything that has arrived, step, answer; sleep only when there is nothing to do."""
    pool = engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
    while True:
        busy = engine.has_unfinished_requests()
        while not busy or not inbox.empty():
            line = inbox.get()
            if line is None:
                return
            if (request := json.loads(line)).get("forget"):
                engine.reset_prefix_cache()
                _reply(replies, {"id": request["id"], "forgot": True})
                continue
            _add(engine, request, replies)
            busy = True
        finished = [output for output in engine.step() if output.finished]
        free = pool.get_num_free_blocks() if finished else 0
        for output in finished:
            _reply(replies, {**_answer(output), "free": free})


def _add(engine: Any, request: dict[str, Any], replies: TextIO) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMError
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    try:
        parameters = SamplingParams(
            temperature=request["temperature"],
            top_p=request["top_p"],
            max_tokens=request["max_tokens"],
            seed=request["seed"],
            stop_token_ids=request["stop"],
            logit_bias={int(id): value for id, value in request["bias"].items()} or None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=request["schema"]) if request["schema"] else None,
        )
        engine.add_request(request["id"], {"prompt_token_ids": request["prompt"]}, parameters)
    except (VLLMError, ValueError, TypeError) as error:  # vLLM's refusal of one request
        _reply(replies, {"id": request["id"], "error": str(error)})


def _answer(output: Any) -> dict[str, Any]:
    completion = output.outputs[0]
    return {
        "id": output.request_id,
        "ids": list(completion.token_ids),
        "stop": completion.finish_reason == "stop",
        "prompt": len(output.prompt_token_ids),
        "cached": output.num_cached_tokens or 0,
    }


def _reply(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
