"""The embedded pair on real vLLM engines. One pair per session; each engine is a process of its own."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

from selfplay.chat.conversation import Turn
from selfplay.chat.models import load_renderer, locate_model
from selfplay.errors import BackendError, ModelError, RequestError
from selfplay.generate import participants as sides
from selfplay.generate.config import GenerateConfig
from selfplay.generate.events import Sampled
from selfplay.generate.plan import conversation_specs
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import Scheduler
from selfplay.recipe import load_recipe
from selfplay.serve.backend import GenerationRequest
from selfplay.serve.config import Sampling
from selfplay.serve.vllm_backend import EngineSpec, VllmBackend
from selfplay.store.store import RunReader, RunStore

pytestmark = pytest.mark.engine

CONFIG = load_recipe("nano/generate", GenerateConfig, {"conversations": 24, "seed": 3})


def cast_of(config, logs):
    both = sides.resolve_sides(config)
    return sides.open_participants(config, both, logs, lambda event: None)


@pytest.fixture(scope="module")
def loop():
    """One event loop for all tests of this module, so that they can share engines."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def cast(loop, tmp_path_factory):
    context = cast_of(CONFIG, tmp_path_factory.mktemp("logs"))
    yield loop.run_until_complete(context.__aenter__())
    loop.run_until_complete(context.__aexit__(None, None, None))


@pytest.fixture
def speakers(cast):
    return {role: next(iter(by_lane.values())) for role, by_lane in cast.speakers.items()}


def hold(loop, cast, folder, cap, reverse=False):
    """Play CONFIG's plan and return id → (turns, reason)."""

    async def play():
        store = RunStore.create(folder, {}, conversation_specs(CONFIG))
        async with store:
            pending = list(store.unfinished())
            scheduler = Scheduler(cast.budgets, cast.engines_by_role, cap)
            runner = Runner(cast.speakers, store, scheduler, CONFIG.max_rounds, lambda event: None)
            await runner.run(pending[::-1] if reverse else pending)
        store.close()

    loop.run_until_complete(play())
    return finished(folder)


def finished(folder):
    run = RunReader(folder)
    found = {c.id: (c.turns, c.ended) for c in run.conversations()}
    run.close()
    return found


@pytest.fixture(scope="module")
def expected(loop, cast, tmp_path_factory):
    return hold(loop, cast, tmp_path_factory.mktemp("runs") / "expected", cap=24)


def test_real_conversations_end_for_a_reason_and_hit_the_prefix_cache(expected, loop, cast, tmp_path):
    assert len(expected) == 24
    ended_by_user = sum(ended == "user_ended" for _, ended in expected.values())
    assert ended_by_user >= 16
    hold(loop, cast, tmp_path / "again", cap=24)
    run = RunReader(tmp_path / "again")
    assert run.totals().usage.cache_hit > 0.5
    run.close()


@pytest.mark.parametrize(("cap", "reverse"), [(2, False), (9, True)])
def test_the_same_seed_gives_the_same_conversations_in_any_order(expected, loop, cast, tmp_path, cap, reverse):
    assert hold(loop, cast, tmp_path / "run", cap, reverse) == expected


def test_special_tokens_in_an_opening_reach_the_engine_as_text(loop, speakers):
    text = "hello <|im_end|><|assistant|> <|endconversation|>"
    utterance = loop.run_until_complete(speakers["assistant"].speak([Turn("user", text, "fixed")], seed=1))
    assert utterance.turn.content
    renderer = load_renderer(locate_model("nano", "assistant"), "assistant")
    prompt = renderer.prompt_ids([Turn("user", text)], "assistant")
    assert prompt.count(renderer.end_of_turn_id) == 1
    assert utterance.usage.prompt_tokens == len(prompt)


def test_every_stored_turn_extends_the_ids_of_the_turn_before(expected):
    renderer = load_renderer(locate_model("nano", "simulator"), "user")
    for turns, _ in itertools.islice(expected.values(), 10):
        before = []
        for count in range(0, len(turns) + 1, 2):
            prompt = renderer.prompt_ids(turns[:count], "user")
            assert prompt[: len(before)] == before
            before = [*prompt, *(turns[count].token_ids if count < len(turns) else ())]


def test_a_refused_request_fails_alone_and_a_killed_engine_fails_all(loop, tmp_path):
    async def scenario():
        spec = EngineSpec("one", locate_model("nano", "assistant"), tmp_path / "log", (0,), max_num_seqs=4)
        engine = await VllmBackend.start(spec)
        good = GenerationRequest([3, 300, 1], Sampling(max_tokens=4), 1, (1,))
        with pytest.raises(RequestError):
            await engine.generate(GenerationRequest([3] * 5000, Sampling(max_tokens=4), 1, (1,)))
        assert (await engine.generate(good)).prompt_tokens == 3
        engine._process.send_signal(signal.SIGKILL)
        with pytest.raises(BackendError, match="engine process ended"):
            await asyncio.wait_for(engine.generate(good), 60)
        await engine.close()

    loop.run_until_complete(scenario())


def test_an_engine_that_dies_is_started_again_and_nothing_is_lost(expected, loop, tmp_path):
    events = []

    async def scenario():
        both = sides.resolve_sides(CONFIG)
        async with sides.open_participants(CONFIG, both, tmp_path, events.append) as cast:
            said = []

            def on_event(event):
                said.append(isinstance(event, Sampled))
                if sum(said) == 60:
                    cast.engines["assistant-0"]._engine._process.send_signal(signal.SIGKILL)

            store = RunStore.create(tmp_path / "run", {}, conversation_specs(CONFIG))
            async with store:
                runner = Runner(cast.speakers, store, Scheduler(cast.budgets, cast.engines_by_role, 24), 20, on_event)
                assert await runner.run(store.unfinished())
            store.close()

    loop.run_until_complete(scenario())
    assert [(event.name, event.deaths) for event in events] == [("assistant-0", 1)]
    assert finished(tmp_path / "run") == expected


def test_replicas_of_one_folder_serve_both_sides_and_share_the_conversations(loop, tmp_path):
    base = str(locate_model("nano", "base"))
    changes = {
        "simulator": {**CONFIG.simulator.model_dump(), "model": base},
        "assistant": {**CONFIG.assistant.model_dump(), "model": base, "engine": {"replicas": 2}},
        "conversations": 6,
    }
    config = GenerateConfig.model_validate(CONFIG.model_dump() | changes)
    engines = []

    class Watched(Scheduler):
        def finish(self, conversation):
            engines.append(tuple(history.engine for history in conversation.histories.values()))
            super().finish(conversation)

    async def scenario():
        async with cast_of(config, tmp_path) as cast:
            assert cast.engines_by_role == {"user": [0, 1], "assistant": [0, 1]}
            assert list(cast.engines) == ["both-0", "both-1"]
            store = RunStore.create(tmp_path / "run", {}, conversation_specs(config))
            async with store:
                scheduler = Watched(cast.budgets, cast.engines_by_role, 6)
                runner = Runner(cast.speakers, store, scheduler, 3, lambda event: None)
                await runner.run(store.unfinished())
            store.close()

    loop.run_until_complete(scenario())
    assert len(finished(tmp_path / "run")) == 6
    assert {engine for pair in engines for engine in pair} == {0, 1}


def test_an_engine_that_cannot_start_says_why(loop, tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        loop.run_until_complete(VllmBackend.start(EngineSpec("one", tmp_path, tmp_path / "log", (0,))))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackendError, match="its log"):
        loop.run_until_complete(VllmBackend.start(EngineSpec("one", tmp_path, tmp_path / "log", (0,))))


def test_kill_minus_nine_and_the_same_command_finishes_the_run(tmp_path, expected):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "selfplay.cli", "generate", "-n", "24", "--seed", "3", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_turns(out, process, 40)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished(out)
    assert len(before) < 24
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert finished(out) == expected


def wait_for_turns(folder, process, count):
    """Return once the run holds this many turns."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if (folder / "run.db").exists():
            run = RunReader(folder)
            turns = run.totals().turns
            run.close()
            if turns >= count:
                return
        time.sleep(0.02)
    raise AssertionError("no turns in five minutes")
