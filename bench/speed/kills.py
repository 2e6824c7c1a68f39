"""kill -9 on real runs: the embedded pair on real engines, killed at random turns and taken up again each time.

    python -m bench.speed.kills                # 25 kills: about 15 minutes on 2 cores

One run is played undisturbed. A second one of the same plan is started as a user would, its process group is killed
once a random number of further turns is on disk, and it is taken up again with --resume, 25 times over. Then it is
finished. Float32 engines: both must hold the same conversations, to the token.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfplay.chat.conversation import Turn
from selfplay.store.store import DATABASE, RunReader


def play(folder: Path, conversations: int, *, resume: bool) -> subprocess.Popen[bytes]:
    """`selfplay generate` in a process group of its own."""
    command = [sys.executable, "-m", "selfplay.cli", "generate", "-n", str(conversations), "--out", str(folder)]
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def turns_of(folder: Path) -> int:
    """Turns on disk."""
    if not (folder / DATABASE).exists():
        return 0
    run = RunReader(folder)
    count = run.totals().turns
    run.close()
    return count


def held(folder: Path) -> dict[str, tuple[tuple[Turn, ...], str | None]]:
    """Every finished conversation, turns with their sampled ids, and why it ended."""
    run = RunReader(folder)
    found = {conversation.id: (conversation.turns, conversation.ended) for conversation in run.conversations()}
    run.close()
    return found


def kill_after(folder: Path, conversations: int, turns: int, delay: float) -> tuple[int, int]:
    """Play until `turns` are on disk, wait `delay` seconds, kill. Turns on disk before and after."""
    turns = max(turns, turns_of(folder) + 1)
    process = play(folder, conversations, resume=(folder / DATABASE).exists())
    while turns_of(folder) < turns:
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself ({process.returncode}) before it could be killed")
        time.sleep(0.01)
    time.sleep(delay)
    before = turns_of(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return before, turns_of(folder)


def main() -> None:
    """Play, kill, compare, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        if play(whole, chosen.conversations, resume=False).wait() != 0:
            raise SystemExit("the undisturbed run failed")
        expected = held(whole)
        total = sum(len(turns) for turns, _ in expected.values())
        moments = sorted(chance.sample(range(1, total - 40), chosen.kills))
        lost = 0
        print(f"{chosen.conversations} conversations, {total:,} turns; killed at (turns on disk): ", end="", flush=True)
        for moment in moments:
            before, after = kill_after(killed, chosen.conversations, moment, chance.random() * 0.05)
            lost += max(0, before - after)
            print(after, end=" ", flush=True)
        if play(killed, chosen.conversations, resume=True).wait() != 0:
            raise SystemExit("the last part failed")
        found = held(killed)
    same = sum(found.get(id) == conversation for id, conversation in expected.items())
    print(f"\n\n| kill -9, {chosen.kills} times | |\n| --- | ---: |")
    print(f"| conversations finished | {len(found)} of {len(expected)} |")
    print(f"| the same as undisturbed, to the token | {same} of {len(expected)} |")
    print(f"| turns that were on disk and are gone | {lost} |")
    if same != len(expected) or lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
