"""vLLM's own server in front of the embedded pair: what goes through HTTP is what goes in process."""

import asyncio
import subprocess
import sys
import time
import urllib.request

import pytest

from assistant.config import AssistantConfig
from selfplay import app
from selfplay.chat.models import load_renderer, locate_model
from selfplay.generate.config import GenerateConfig
from selfplay.serve.completions import TextCompletions, TokenCompletions
from selfplay.serve.config import EndpointSettings, Sampling
from selfplay.serve.endpoint import Endpoint
from selfplay.serve.turns import TurnSampler
from selfplay.serve.vllm_backend import EngineSpec, _environment
from selfplay.store.store import RunReader

pytestmark = pytest.mark.engine
PORT = 18741
SAMPLING = Sampling(max_tokens=48)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The simulator behind `vllm serve`, as its model folder is."""
    folder = locate_model("nano", "simulator")
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(PORT),
        "--host", "127.0.0.1", "--served-model-name", "user", "--dtype", "float32", "--enforce-eager",
        "--block-size", "32", "--max-num-seqs", "32", "--max-num-batched-tokens", "32768",
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    environment = _environment(EngineSpec("server", folder, log, (0, 1))) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True) as server,
    ):
        deadline = time.monotonic() + 240
        while not answers():
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{PORT}/v1"
        server.terminate()


def answers():
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1).status == 200
    except OSError:
        return False


async def conversation(url, protocol):
    """Five user turns over a server, the assistant's texts fixed."""
    from selfplay.chat.conversation import Turn

    renderer = load_renderer(locate_model("nano", "simulator"), "user")
    endpoint = await Endpoint.connect(url, EndpointSettings(), "NO_KEY")
    backend = TokenCompletions(endpoint) if protocol == "token_ids" else TextCompletions(endpoint, renderer)
    sampler = TurnSampler(backend, renderer, "user", SAMPLING)
    turns, usages = [], []
    for attempt in range(5):
        sampled = await sampler.sample(turns, 7, attempt)
        usages.append(sampled.usage)
        if sampled.ends:
            break
        turns += [sampled.turn, Turn("assistant", "Sure <|im_end|> which day?", "fixed")]
    await endpoint.close()
    return turns, usages, sampled.ends


def test_token_ids_over_http_extend_the_history_and_hit_the_cache(url):
    turns, usages, _ = asyncio.run(conversation(url, "token_ids"))
    assert all(turn.token_ids for turn in turns if turn.role == "user")
    assert len(usages) > 1
    assert usages[-1].cached_tokens > 0


def test_text_over_http_gives_turns(url):
    turns, usages, _ = asyncio.run(conversation(url, "text"))
    assert turns[0].content
    assert usages[0].sampled_tokens > 0


def test_a_hosted_assistant_talks_to_a_local_simulator(url, tmp_path):
    """The server's template opens a user turn, which does not matter here: it answers as a chat server does."""
    config = GenerateConfig(
        assistant=AssistantConfig(model=url, sampling=SAMPLING),
        conversations=6, max_rounds=4, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert app.generate(config).stopped is None
    run = RunReader(tmp_path / "run")
    conversations = list(run.conversations())
    totals = run.totals()
    run.close()
    assert len(conversations) == 6
    assert not [c.ended for c in conversations if c.ended.startswith("failed")]
    assert totals.by_role["assistant"].prompt_tokens > 0
    assert all(turn.token_ids is None for c in conversations for turn in c.turns if turn.role == "assistant")
