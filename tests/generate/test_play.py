"""Runs from outside: interrupts, limits, growing, estimates. Both sides are a scripted server."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from selfplay import app
from selfplay.errors import ConfigError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.estimate import PILOT
from selfplay.serve.scripted_server import ScriptedServer
from selfplay.store.store import DATABASE, RunReader


@pytest.fixture
async def url():
    server = ScriptedServer(latency=0.02, end_share=0.1)
    yield await server.start()
    await server.stop()


def config(url, folder, **changes):
    values = {
        "simulator": {"model": url, "endpoint": {"tokenizer": "nano", "input_price": 1.0}},
        "assistant": {"model": url, "endpoint": {"output_price": 2.0}},
        "conversations": 40, "out": str(folder), "max_in_flight": 8,
        **changes,
    }  # fmt: skip
    return GenerateConfig.model_validate(values)


def held(folder):
    run = RunReader(folder)
    found = {c.id: ([turn.content for turn in c.turns], c.ended) for c in run.conversations()}
    pending = sum(1 for _ in run.unfinished())
    run.close()
    return found, pending


def command(url, folder, *more):
    arguments = ["generate", "--simulator", url, "--simulator-tokenizer", "nano", "--assistant", url, "--out", folder]
    options = ["-n", "40", "--max-in-flight", "8", *more]
    return [sys.executable, "-m", "selfplay.cli", *map(str, arguments), *options]


async def test_an_interrupt_finishes_the_turns_in_flight_and_says_how_to_go_on(url, tmp_path):
    await asyncio.to_thread(app.generate, config(url, tmp_path / "whole"))
    folder = tmp_path / "run"
    process = await asyncio.create_subprocess_exec(*command(url, folder), stderr=subprocess.PIPE)
    while not (folder / DATABASE).exists() or len(held(folder)[0]) < 5:
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert f"--out {folder} --resume" in errors.decode()
    _, pending = held(folder)
    assert 0 < pending < 40
    run = RunReader(folder)
    assert run.totals().reasons[None] == pending
    run.close()
    again = await asyncio.create_subprocess_exec(*command(url, folder, "--resume"), stderr=subprocess.DEVNULL)
    assert await again.wait() == 0
    assert held(folder) == held(tmp_path / "whole")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["finished"] == 40
    assert lines[-1]["turns_per_s"] > 0


async def test_a_second_interrupt_stops_at_once(tmp_path):
    server = ScriptedServer(latency=20.0)
    address = await server.start()
    process = await asyncio.create_subprocess_exec(*command(address, tmp_path / "run"), stderr=subprocess.PIPE)
    while server.busy == 0:
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.5)
    assert process.returncode is None, "turns in flight are waited for"
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 130
    assert time.monotonic() - started < 8
    await server.stop()


@pytest.mark.parametrize("limit", [{"max_tokens_total": 300}, {"max_hours": 0.3 / 3600}])
async def test_limits_stop_a_run_cleanly_and_it_can_go_on(url, tmp_path, limit):
    run = await asyncio.to_thread(app.generate, config(url, tmp_path / "run", **limit))
    if "max_tokens_total" in limit:
        again = await asyncio.to_thread(app.generate, config(url, tmp_path / "run", **limit), resume=True)
        assert again.stopped == run.stopped, "a limit that was reached holds on resuming"
    assert run.stopped in ("300 tokens are sampled", f"{limit.get('max_hours', 0):g} hours are over")
    assert held(tmp_path / "run")[1] > 0
    run = await asyncio.to_thread(app.generate, config(url, tmp_path / "run"), resume=True)
    assert run.stopped is None
    assert held(tmp_path / "run")[1] == 0


async def test_a_finished_run_grows_by_what_a_longer_one_would_have_held(url, tmp_path):
    await asyncio.to_thread(app.generate, config(url, tmp_path / "long", conversations=30))
    await asyncio.to_thread(app.generate, config(url, tmp_path / "run", conversations=20))
    await asyncio.to_thread(app.generate, config(url, tmp_path / "run", conversations=10), append=True)
    assert held(tmp_path / "run") == held(tmp_path / "long")
    resumed = config(url, tmp_path / "run", conversations=None)
    assert (await asyncio.to_thread(app.generate, resumed, resume=True)).stopped is None
    run = RunReader(tmp_path / "run")
    assert run.facts()["config"]["conversations"] == 30
    run.close()


async def test_an_estimate_is_close_to_what_the_run_takes_and_keeps_nothing(url, tmp_path):
    whole = config(url, tmp_path / "run", conversations=200)
    foreseen = await asyncio.to_thread(app.estimate_run, whole)
    assert not (tmp_path / "run").exists()
    await asyncio.to_thread(app.generate, whole)
    run = RunReader(tmp_path / "run")
    totals = run.totals()
    run.close()
    assert foreseen.conversations == 200
    assert foreseen.measured >= PILOT
    assert foreseen.turns == pytest.approx(totals.turns, rel=0.5)
    sampled = sum(foreseen.sampled_tokens.values())
    assert sampled == pytest.approx(totals.usage.sampled_tokens, rel=0.5)
    cost = totals.by_role["user"].prompt_tokens * 1e-6 + totals.by_role["assistant"].sampled_tokens * 2e-6
    assert foreseen.cost == pytest.approx(cost, rel=0.5)
    assert foreseen.disk_bytes > 0


async def test_prometheus_reads_the_figures(url, tmp_path):
    running = asyncio.create_task(
        asyncio.to_thread(app.generate, config(url, tmp_path / "run", conversations=200), metrics_port=19417)
    )
    text = ""
    for _ in range(100):
        await asyncio.sleep(0.1)
        try:
            text = await asyncio.to_thread(
                lambda: urllib.request.urlopen("http://127.0.0.1:19417/metrics").read().decode()
            )
        except OSError:
            continue
        if 'selfplay_conversations_ended_total{reason="user_ended"}' in text:
            break
    await running
    assert "selfplay_conversations_planned 200.0" in text
    assert 'selfplay_asked{side="assistant"}' in text


async def test_a_busy_metrics_port_is_told(url, tmp_path):
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConfigError, match="choose another --metrics-port"):
        await asyncio.to_thread(app.generate, config(url, tmp_path / "run"), metrics_port=port)
    server.close()
