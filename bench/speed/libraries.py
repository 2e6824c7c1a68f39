"""The same work with other libraries, side by side in one run: conversations over HTTP against the scripted server.

    python -m bench.speed.libraries            # installs each into an environment of its own; about ten minutes

distilabel, deepeval and data-designer each run through a driver in `rivals/` at the best concurrency found for it; ours
runs with its store on. One request is answered after 50 ms; a conversation is 3 rounds, 6 requests. Medians of
interleaved runs; the server is new for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.speed.harness import LATENCY, bare_http, ours_http, scripted_server

HERE = Path(__file__).parent / "rivals"
LIBRARIES = ("distilabel", "deepeval", "data_designer")
OURS = "selfplay, store on"
BARE = "bare aiohttp loop"


def environment(name: str, root: Path) -> Path:
    """A virtual environment with one library; made once, kept in `root`. Returns its Python."""
    python = root / name / "bin" / "python"
    if not python.exists():
        uv = [str(Path(sys.executable).with_name("uv"))]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(root / name)], check=True)
        requirements = HERE / "requirements" / f"{name}.txt"
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)], check=True)
    return python


def drive(name: str, python: Path, conversations: int, url: str) -> tuple[str, float]:
    """Run a library's driver: what it was and how it was set, and its conversations per second."""
    command = [str(python), str(HERE / f"{name}_driver.py"), "--url", url, "--conversations", str(conversations)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["requests"] in (None, 6 * conversations), f"{name} made {told['requests']} requests"
    return f"{told['library']} {told['version']} ({told['setting']})", conversations / told["seconds"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=1000, help="of ours and of the bare loop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "selfplay-bench")
    chosen = parser.parse_args()
    pythons = {name: environment(name, chosen.environments) for name in LIBRARIES}
    rates: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(chosen.repeats):
        with tempfile.TemporaryDirectory() as folder, scripted_server(LATENCY) as url:
            rates[BARE].append(asyncio.run(bare_http(chosen.conversations, chosen.in_flight, url)))
        with tempfile.TemporaryDirectory() as folder, scripted_server(LATENCY) as url:
            run = ours_http(chosen.conversations, chosen.in_flight, Path(folder) / "run", url)
            rates[OURS].append(asyncio.run(run))
        for name in LIBRARIES:
            with scripted_server(LATENCY) as url:
                title, rate = drive(name, pythons[name], chosen.conversations, url)
            rates[title].append(rate)
    medians = {name: median(values) for name, values in rates.items()}
    print(f"{chosen.conversations:,} conversations of 3 rounds, 6 requests each, {LATENCY * 1000:.0f} ms a reply, "
          f"medians of {chosen.repeats}\n")  # fmt: skip
    print("| over HTTP | conversations/s | ours ÷ its rate |\n| --- | ---: | ---: |")
    for name, rate in medians.items():
        print(f"| {name} | {rate:,.0f} | {medians[OURS] / rate:.1f} |")


if __name__ == "__main__":
    main()
