"""kill -9 on a real loop, once in each stage: the embedded pair on real engines, real training, real scores.

    python -m bench.speed.loop_kills           # about 12 minutes on 2 cores

One loop runs undisturbed. A second one of the same recipe is started as a user would; once in each stage its process
group is killed, at a random share of the time the stage took undisturbed, and the same command goes on. Both must end
with the same ledger, figures, conversations and weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selfplay.chat.models import content_hash
from selfplay.loop.config import STAGES, Stage
from selfplay.loop.inputs import conversations_hash, files_hash
from selfplay.loop.ledger import Ledger, StageRecord

RECIPE: dict[str, Any] = {
    "iterations": 1,
    "simulator": {
        "train": "first",
        "settings": {"base": "nano", "data.datasets": ["sample"], "optim.max_steps": 20, "save_steps": 4},
    },
    "generate": {"settings": {"conversations": 80}},
    "curate": {"settings": {"personal": False, "endings": ["user_ended", "context_full", "max_rounds"]}},
    "assistant": {
        "start": "last",
        "human": ["sample"],
        "settings": {"optim.max_steps": 30, "optim.batch_tokens": 2048, "optim.learning_rate": 1e-4, "save_steps": 4},
    },
    "bench": {"people": ["sample"], "most": 100, "examples": 2},
}
LOOP = Path("loop")
"""The folder of either loop, each below a folder of its own: a path that is written down is the same in both."""


def started(place: Path) -> subprocess.Popen[bytes]:
    """`selfplay loop` in a process group of its own."""
    command = [sys.executable, "-m", "selfplay.cli", "loop", "run", "recipe.yaml", "--out", str(LOOP)]
    with (place / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=place, stdout=log, stderr=log, start_new_session=True)


def entry_of(place: Path, stage: Stage) -> StageRecord | None:
    """The stage's entry in the first iteration."""
    return Ledger(place / LOOP).entry(1, stage)


def kill_in(place: Path, stage: Stage, after: float) -> tuple[float, str]:
    """Run until the stage has gone on for `after` seconds, kill; how long it had, and its state in the ledger then."""
    process = started(place)
    while (entry := entry_of(place, stage)) is None:
        if process.poll() is not None:
            raise SystemExit(f"the loop ended by itself ({process.returncode}) before {stage}; see {place}/log")
        time.sleep(0.002)
    time.sleep(max(0.0, entry.started + after - time.time()))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = entry_of(place, stage)
    assert left is not None
    return time.time() - entry.started, left.state


def outcome(place: Path) -> dict[str, Any]:
    """What may not depend on kills: ledger without times, conversations, curated rows, weights."""
    folder = place / LOOP
    told = {f"{e.iteration} {e.stage}": (e.state, e.identity, e.figures) for e in Ledger(folder).entries()}
    return {
        "ledger and figures": told,
        "conversations": conversations_hash(folder / "001/run"),
        "curated rows": files_hash([str(folder / "001/kept.jsonl")]),
        "simulator": content_hash(folder / "001/simulator"),
        "assistant": content_hash(folder / "001/assistant"),
    }


def main() -> None:
    """Run, kill, compare, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chance = random.Random(parser.parse_args().seed)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        for place in (whole, killed):
            place.mkdir()
            (place / "recipe.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")
        if started(whole).wait() != 0:
            raise SystemExit(f"the undisturbed loop failed:\n{(whole / 'log').read_text()[-2000:]}")
        print("| stage | undisturbed | killed after | state then |\n| --- | ---: | ---: | --- |", flush=True)
        for stage in STAGES:
            entry = entry_of(whole, stage)
            assert entry is not None
            took = entry.seconds or 0.0
            after, state = kill_in(killed, stage, took * chance.uniform(0.1, 0.9))
            print(f"| {stage} | {took:.1f} s | {after:.1f} s | {state} |", flush=True)
        if started(killed).wait() != 0:
            raise SystemExit(f"the last part failed:\n{(killed / 'log').read_text()[-2000:]}")
        expected, found = outcome(whole), outcome(killed)
    print("\n| after the same command once more | |\n| --- | --- |")
    for what, value in expected.items():
        print(f"| {what} | {'the same' if found[what] == value else 'DIFFERENT'} |")
    if found != expected:
        raise SystemExit(json.dumps([expected, found], indent=1, default=str))


if __name__ == "__main__":
    main()
