"""kill -9, a hundred times over one run: nothing said is lost, nothing is said twice, the end is as if nothing was."""

import asyncio
import os
import random
import signal
import struct
import threading
import time

import pytest

from assistant.speaker import AssistantSpeaker
from selfplay.generate.events import Sampled
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import EngineBudget, Scheduler
from selfplay.seeds import derive_seed
from selfplay.serve.config import Sampling
from selfplay.serve.scripted import ScriptedBackend, pick_from
from selfplay.serve.turns import TurnSampler
from selfplay.store.records import ConversationSpec
from selfplay.store.store import RunReader, RunStore
from simulator.guardrails import Guardrails
from simulator.speaker import UserSpeaker

CONVERSATIONS = 600
KILLS = int(os.environ.get("SELFPLAY_KILLS", "3"))


async def play(renderers, folder, on_event=lambda event: None):
    """Play what is owed, a twentieth of the requests failing."""
    rows = [renderers["user"].encode_text(f"these are the words number {number}") for number in range(40)]
    end = renderers["user"].end_of_conversation_id
    common = {"latency": 0.004, "fault_share": 0.05}
    user, assistant = ScriptedBackend(pick_from(rows, end, 0.1), **common), ScriptedBackend(pick_from(rows), **common)
    sampling = Sampling(max_tokens=32)
    speakers = {
        "user": {0: UserSpeaker(TurnSampler(user, renderers["user"], "user", sampling), Guardrails())},
        "assistant": {1: AssistantSpeaker(TurnSampler(assistant, renderers["assistant"], "assistant", sampling))},
    }
    if folder.exists():
        store = RunStore(folder)
    else:
        plans = [ConversationSpec(number, f"c{number}", derive_seed(0, number)) for number in range(CONVERSATIONS)]
        store = RunStore.create(folder, {}, plans)
    async with store:
        scheduler = Scheduler([EngineBudget(), EngineBudget()], {"user": [0], "assistant": [1]}, 20)
        await Runner(speakers, store, scheduler, 6, on_event).run(store.unfinished())
    store.close()


def play_and_die(renderers, folder, turns, delay):
    """In a child process: play, and be killed `delay` seconds after so many turns. Returns turns acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = [0]

        def on_event(event):
            said[0] += isinstance(event, Sampled) and event.turn_taken
            os.write(writing, struct.pack("i", said[0]))
            if said[0] == turns:
                threading.Thread(target=die, args=(delay,), daemon=True).start()

        asyncio.run(play(renderers, folder, on_event))
        os._exit(0)
    os.close(writing)
    acknowledged = 0
    while packed := os.read(reading, 4):
        (acknowledged,) = struct.unpack("i", packed)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return acknowledged, os.WIFSIGNALED(status)


def die(delay):
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def read(folder):
    run = RunReader(folder)
    finished = {c.id: (c.turns, c.ended) for c in run.conversations()}
    pending = {unfinished.spec.id: unfinished.turns for unfinished in run.unfinished()}
    run.close()
    return finished, pending


@pytest.mark.crash
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(renderers, tmp_path):
    asyncio.run(play(renderers, tmp_path / "whole"))
    expected, _ = read(tmp_path / "whole")
    assert len(expected) == CONVERSATIONS
    assert sum(ended == "failed:scripted" for _, ended in expected.values()) > 10
    chance = random.Random(20)
    folder, before, kills = tmp_path / "killed", 0, 0
    RunStore.create(
        folder, {}, [ConversationSpec(number, f"c{number}", derive_seed(0, number)) for number in range(CONVERSATIONS)]
    ).close()
    total = sum(len(turns) for turns, _ in expected.values())
    while kills < KILLS:
        turns = chance.randint(1, max(2, 2 * (total - before) // (KILLS - kills + 20)))
        acknowledged, killed = play_and_die(renderers, folder, turns, chance.random() * 0.002)
        assert killed, "the run was over before it could be killed"
        kills += 1
        finished, pending = read(folder)
        said = sum(len(turns) for turns, _ in finished.values()) + sum(map(len, pending.values()))
        assert said >= before + acknowledged, "a turn that was acknowledged is gone"
        assert len(finished) + len(pending) == CONVERSATIONS
        assert all(expected[id] == conversation for id, conversation in finished.items())
        assert all(expected[id][0][: len(turns)] == turns for id, turns in pending.items())
        before = said
    asyncio.run(play(renderers, folder))
    assert read(folder) == (expected, {})
