"""Servers: what a client does about faults, limits and wrong settings. All on 127.0.0.1, scripted."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from selfplay import app
from selfplay.chat.conversation import Turn
from selfplay.errors import BackendError, ConfigError, RequestError
from selfplay.generate.config import GenerateConfig
from selfplay.serve.backend import GenerationRequest
from selfplay.serve.chat_completions import ChatSampler
from selfplay.serve.completions import TextCompletions, TokenCompletions
from selfplay.serve.config import EndpointSettings, Sampling
from selfplay.serve.endpoint import Endpoint, _retry_after
from selfplay.serve.limiter import AdaptiveLimit
from selfplay.serve.scripted_server import ScriptedServer
from selfplay.store.store import RunReader

QUICK = {"first_delay": 0.001, "timeout": 0.3}


@pytest.fixture
async def serve():
    """Start scripted servers; all are stopped at the end."""
    servers, endpoints = [], []

    async def start(settings=None, **options):
        server = ScriptedServer(**options)
        servers.append(server)
        url = await server.start()
        endpoint = await Endpoint.connect(url, EndpointSettings(**{**QUICK, **(settings or {})}), "NO_KEY")
        endpoints.append(endpoint)
        return server, endpoint

    yield start
    for endpoint in endpoints:
        await endpoint.close()
    for server in servers:
        await server.stop()


def ask(endpoint, number=0):
    sampler = ChatSampler(endpoint, Sampling(max_tokens=8))
    return sampler.sample([Turn("user", f"hello {number}")], number, 0)


async def test_a_server_that_fails_three_times_in_ten_loses_nothing(serve):
    server, endpoint = await serve(faults=0.3, stall=5.0, settings={"attempts": 20})
    answers = await asyncio.gather(*(ask(endpoint, number) for number in range(200)))
    assert all(answer.turn.content for answer in answers)
    assert server.counts["ok"] == 200
    assert set(endpoint.faults) == {"http_429", "http_500", "http_503", "connection", "timeout", "bad_reply"}
    assert sum(endpoint.faults.values()) == sum(server.counts.values()) - 200


async def test_one_request_that_never_gets_through_fails_alone(serve):
    def reply(body):
        return "\ud83d" if body["messages"][0]["content"] == "hello 7" else "fine"

    _, endpoint = await serve(reply=reply, latency=0.01, settings={"attempts": 3})
    answers = await asyncio.gather(*(ask(endpoint, number) for number in range(10)), return_exceptions=True)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, RequestError)]
    assert failed == [7]
    assert answers[7].cause == "bad_reply"


async def test_a_server_that_is_gone_stops_the_run(serve):
    server, endpoint = await serve(settings={"attempts": 3})
    assert (await ask(endpoint)).turn.content
    await server.stop()
    with pytest.raises(BackendError, match="does not answer at all") as raised:
        await ask(endpoint)
    assert not isinstance(raised.value, RequestError)


async def test_concurrency_follows_what_the_server_bears(serve):
    server, endpoint = await serve(latency=0.01, capacity=40, settings={"attempts": 30})
    await asyncio.gather(*(ask(endpoint, number) for number in range(1500)))
    assert server.counts["ok"] >= 1500  # a request that a busy machine timed out is served twice
    refused = server.counts["429"]
    assert 0 < refused < 750, "it keeps running into the limit"
    assert server.most_busy > 30, "it stays far below what the server takes"


async def test_retry_after_holds_back_every_request_also_those_that_wait_for_a_place(serve):
    server, endpoint = await serve(capacity=0, retry_after="0.4", settings={"max_concurrency": 1})
    asked = [asyncio.create_task(ask(endpoint, number)) for number in range(5)]
    await asyncio.sleep(0.15)
    assert server.counts["429"] == 1
    server._capacity = None
    started = time.monotonic()
    await asyncio.gather(*asked)
    assert time.monotonic() - started > 0.2
    assert server.counts == {"429": 1, "ok": 5}


async def test_a_poisoned_request_at_the_end_of_a_run_fails_alone(serve):
    _, endpoint = await serve(reply=lambda body: "\ud83d", settings={"attempts": 2})
    with pytest.raises(RequestError):
        await ask(endpoint)


async def test_a_server_that_gives_nothing_for_a_long_time_stops_the_run(serve):
    _, endpoint = await serve(faults=1.0, stall=0.0, settings={"attempts": 50, "first_delay": 0.0})
    endpoint._failing_since = time.monotonic() - 1000
    with pytest.raises(BackendError, match="nothing got through for 17 minutes"):
        await ask(endpoint)


async def test_control_tokens_in_messages_are_broken_up_and_other_finishes_are_no_turns(serve):
    seen = []

    def reply(body):
        seen.append(body["messages"][0]["content"])
        return "fine"

    _, endpoint = await serve(reply=reply, settings={"attempts": 1})
    sampler = ChatSampler(endpoint, Sampling(max_tokens=8))
    judged = "<|The Start of Assistant A's Answer|>"  # of FastChat's judge prompts: no template has such a token
    await sampler.sample([Turn("user", f"a <|im_end|> b </s> [INST] 1 < 2 <b> {judged}")], 1, 0)
    assert seen == [f"a < |im_end|> b < /s> [ INST] 1 < 2 <b> {judged}"]
    from selfplay.serve.chat_completions import _read

    cut = {"choices": [{"finish_reason": "content_filter", "message": {"content": "half a"}}]}
    with pytest.raises(ValueError, match="content_filter"):
        _read(cut)


def test_retry_after_is_seconds_or_a_date():
    assert _retry_after("2.5") == 2.5
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < _retry_after(in_a_minute) <= 60
    assert _retry_after("soon") is None
    assert _retry_after(None) is None


async def test_what_is_set_wrong_is_told_at_once(serve):
    _, endpoint = await serve()
    settings = EndpointSettings(attempts=1, first_delay=0)
    with pytest.raises(ConfigError, match="no model 'gpt'; it lists scripted"):
        await Endpoint.connect(endpoint.url, settings.model_copy(update={"model": "gpt"}), "NO_KEY")
    with pytest.raises(ConfigError, match="not a URL"):
        await Endpoint.connect("http://[half/v1", settings, "NO_KEY")
    with pytest.raises(BackendError, match="cannot list models"):
        await Endpoint.connect("http://127.0.0.1:9/v1", settings, "NO_KEY")
    assert (endpoint.model, endpoint.max_context) == ("scripted", 4096)
    with pytest.raises(BackendError, match="answers 404"):
        await endpoint.post("nowhere", {}, dict)
    with pytest.raises(ConfigError, match="which model"):
        await Endpoint.connect(endpoint.url.removesuffix("/v1"), settings, "NO_KEY")


async def test_the_key_comes_from_the_environment(serve, monkeypatch):
    _, endpoint = await serve()
    monkeypatch.setenv("SOME_KEY", "secret")
    with_key = await Endpoint.connect(endpoint.url, EndpointSettings(), "SOME_KEY")
    assert with_key._session.headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in endpoint._session.headers
    await with_key.close()


async def test_the_limit_doubles_then_halves_once_per_round_trip():
    limit = AdaptiveLimit(1000, start=2)
    for expected in (4, 8):
        tickets = [await limit.acquire() for _ in range(limit.limit)]
        for ticket in tickets:
            limit.release(ticket, refused=False)
        assert limit.limit <= expected
    tickets = [await limit.acquire() for _ in range(limit.limit)]
    full = limit.limit
    for ticket in tickets:
        limit.release(ticket, refused=True)
    assert limit.limit == full // 2, "refusals of one round trip count once"


async def test_those_who_wait_for_a_place_get_it_even_if_others_give_up():
    limit = AdaptiveLimit(1)
    ticket = await limit.acquire()
    first, second = asyncio.create_task(limit.acquire()), asyncio.create_task(limit.acquire())
    await asyncio.sleep(0)
    first.cancel()
    limit.release(ticket, refused=False)
    assert await asyncio.wait_for(second, 1)
    assert limit.in_use == 1


async def test_token_ids_go_out_and_come_back_as_they_are(serve, renderers):
    _, endpoint = await serve(end_share=0.0)
    renderer = renderers["user"]
    request = GenerationRequest([3, 300, 1], Sampling(max_tokens=9), 1, (1, 5), ((3, -100.0),))
    completion = await TokenCompletions(endpoint).generate(request)
    assert completion.token_ids == tuple(range(300, 308))
    assert (completion.stop_id, completion.prompt_tokens) == (1, 3)
    text = await TextCompletions(endpoint, renderer).generate(request)
    assert renderer.decode(text.token_ids) in (
        "That sounds good to me.", "Which day do you have in mind?", "I have found three of them for you.",
    )  # fmt: skip


async def test_text_prompts_break_up_what_only_looks_like_control(serve, renderers):
    _, endpoint = await serve()
    renderer = renderers["user"]
    turns = [Turn("user", "hi"), Turn("assistant", "now <|im_end|> and <|endconversation|>")]
    ids = renderer.prompt_ids(turns, "user")
    written = "".join(TextCompletions(endpoint, renderer)._written(ids))
    assert written.count("<|im_end|>") == 2
    assert "now < |im_end|> and < |endconversation|>" in written


@pytest.mark.parametrize("protocol", ["token_ids", "text"])
async def test_both_sides_on_a_faulty_server_say_the_same_as_on_a_good_one(tmp_path, protocol):
    good, bad = ScriptedServer(), ScriptedServer(faults=0.3, stall=3.0)
    urls = [await good.start(), await bad.start()]
    settings = {"tokenizer": "nano", "attempts": 20, "timeout": 0.5, "first_delay": 0.001, "protocol": protocol}
    runs = []
    for number, url in enumerate(urls):
        config = GenerateConfig(
            simulator={"model": url, "endpoint": settings},
            assistant={
                "model": url,
                "endpoint": {"attempts": 20, "timeout": 0.5, "first_delay": 0.001, "output_price": 2.0},
            },
            conversations=20, out=str(tmp_path / str(number)), seed=4,
        )  # fmt: skip
        await asyncio.to_thread(app.generate, config)
        reader = RunReader(tmp_path / str(number))
        runs.append({c.id: ([turn.content for turn in c.turns], c.ended) for c in reader.conversations()})
        reader.close()
    assert runs[0] == runs[1]
    assert len(runs[0]) == 20
    assert not [ended for _, ended in runs[0].values() if ended.startswith("failed")]
    assert bad.counts["500"] > 0
    for server in (good, bad):
        await server.stop()
