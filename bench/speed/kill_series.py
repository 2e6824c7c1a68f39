"""Long kill series: the tests that kill a scripted run and a scripted loop, with more kills than the test suite has.

    python -m bench.speed.kill_series                  # 100 kills of the run, 20 of the loop: about a minute
    python -m bench.speed.kill_series --run 500 --loop 100

The assertions are those of the tests: no acknowledged turn is lost, no turn is there twice, and what was killed ends as
what was not. `bench.speed.kills` and `bench.speed.loop_kills` do the same to real engines and real training.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERIES = {
    "run": "tests/generate/test_crash.py::test_a_run_killed_again_and_again_ends_as_one_that_was_not",
    "loop": "tests/loop/test_kills.py::test_loops_killed_at_any_moment_end_as_one_that_was_not",
}


def measure(test: str, kills: int) -> tuple[float, bool]:
    """Seconds that a series took, and whether every assertion held."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", test]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "SELFPLAY_KILLS": str(kills)}, check=False)
    return time.monotonic() - began, done.returncode == 0


def main() -> None:
    """Run both series and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, default=100, help="kills of the scripted run")
    parser.add_argument("--loop", type=int, default=20, help="kills of the scripted loop")
    arguments = vars(parser.parse_args())
    rows = [(name, kills, *measure(SERIES[name], kills)) for name, kills in arguments.items()]
    print("| killed | kills | seconds | all assertions held |\n| --- | ---: | ---: | --- |")
    for name, kills, seconds, held in rows:
        print(f"| scripted {name} | {kills} | {seconds:.0f} | {'yes' if held else 'NO'} |")
    sys.exit(not all(held for *_, held in rows))


if __name__ == "__main__":
    main()
