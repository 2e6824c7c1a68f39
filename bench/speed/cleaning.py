"""Speed and memory of cleaning conversations, beside other ways to do the same.

    python -m bench.speed.cleaning                      # 10k and 100k rows, 1 and 2 workers
    python -m bench.speed.cleaning --rows 10000 100000 1000000
    python -m bench.speed.cleaning --rivals             # datasketch used plainly, datasets.map with the same steps

Rows are made up: phrases drawn from the shipped sample, 2 % exact and 3 % near copies of other rows. Every measurement
is a process of its own. Memory is the proportional set size of the process and its workers at its highest; files that
are mapped count. The extra with near duplicates is given per row.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfplay.console import terminal as console
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.pipeline import clean
from selfplay.data.loading import load

STEPS = {"html": True, "artefacts": True, "duplicates": True}
THRESHOLD = 0.8
_PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds, MiB at the highest, and rows written, of one process."""

    seconds: float
    memory: float
    rows: int


def make_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Write ShareGPT rows."""
    chance = random.Random(seed)
    words = " ".join(turn.content for talk in load(["sample"]).conversations for turn in talk.turns).split()
    stream = chance.choices(words, k=400_000)
    kept: list[list[str]] = []
    with path.open("w") as file:
        for number in range(rows):
            draw = chance.random()
            if draw < 0.05 and kept:
                texts = list(chance.choice(kept))
                if draw < 0.03:
                    texts[-1] += " " + chance.choice(stream)
            else:
                texts = [_phrase(stream, chance) for _ in range(2 * chance.randint(1, 6))]
            if chance.random() < 0.05:
                kept = [*kept[-999:], texts]
            turns = [{"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(texts)]
            file.write(json.dumps({"id": f"row{number}", "conversations": turns}) + "\n")


def _phrase(stream: list[str], chance: random.Random) -> str:
    start = chance.randrange(len(stream) - 60)
    return " ".join(stream[start : start + chance.randint(4, 40)])


def ours(source: Path, out: Path, workers: int, near: bool) -> int:
    """Our pipeline; the rows it wrote."""
    config = CleanConfig.model_validate({**STEPS, "near_duplicates": THRESHOLD if near else None})
    tally = clean([str(source)], out, config, workers=workers)
    return list(tally.steps.values())[-1].rows_after


def measure(kind: str, source: Path, out: Path, workers: int, near: bool) -> Measured:
    """Run one way of cleaning in a process of its own and watch its memory."""
    command = [sys.executable, "-m", "bench.speed.cleaning", "--one", kind, str(source), str(out), str(workers)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *["--near"] * near], stdout=subprocess.PIPE, text=True)
    highest = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, highest))
    watcher.start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{kind} failed")
    result = json.loads(printed.splitlines()[-1])
    return Measured(result.get("seconds", seconds), highest[0], result["rows"])


def _watch(process: subprocess.Popen[str], highest: list[float]) -> None:
    while process.poll() is None:
        highest[0] = max(highest[0], sum(map(_proportional_set, _family(process.pid))))
        time.sleep(0.1)


def _family(root: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = (_PROCESSES / str(root) / "task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [root, *(member for child in children for member in _family(child))]


def _proportional_set(pid: int) -> float:
    """MiB; shared pages are divided among those who share them."""
    try:
        lines = (_PROCESSES / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def scaling(sizes: Sequence[int], folder: Path) -> list[tuple[str, ...]]:
    """One line per size, workers and whether near duplicates are looked for."""
    lines: list[tuple[str, ...]] = []
    for size in sizes:
        source = folder / f"{size}.jsonl"
        make_rows(source, size)
        for workers in (1, 2):
            plain = measure("ours", source, folder / "out.jsonl", workers, near=False)
            near = measure("ours", source, folder / "out.jsonl", workers, near=True)
            extra = (near.memory - plain.memory) * (1 << 20) / size
            lines.append(
                (f"{size:,}", str(workers), f"{size / plain.seconds:,.0f}", f"{plain.memory:,.0f}",
                 f"{size / near.seconds:,.0f}", f"{near.memory:,.0f}", f"{extra:,.0f}")
            )  # fmt: skip
            console.say(" ".join(lines[-1]))
        source.unlink()
    return lines


def rivals(size: int, folder: Path) -> list[tuple[str, ...]]:
    """Ours beside datasketch and datasets.map, on the same rows in one run."""
    source = folder / "rows.jsonl"
    make_rows(source, size)
    kinds: list[tuple[str, str, int, bool]] = [
        ("near duplicates: ours", "near_ours", 1, True),
        ("near duplicates: datasketch", "near_datasketch", 1, True),
        ("pipeline: ours, 1 process", "ours", 1, False),
        ("pipeline: datasets.map, 1 process", "datasets", 1, False),
        ("pipeline: ours, 2 processes", "ours", 2, False),
        ("pipeline: datasets.map, 2 processes", "datasets", 2, False),
    ]
    lines: list[tuple[str, ...]] = []
    for name, kind, workers, near in kinds:
        found = measure(kind, source, folder / "out.jsonl", workers, near)
        lines.append(
            (name, f"{found.seconds:.1f}", f"{size / found.seconds:,.0f}", f"{found.memory:,.0f}", str(found.rows))
        )
        console.say(" ".join(lines[-1]))
    return lines


def main() -> None:
    """Measure and print, or be one measurement."""
    parser = argparse.ArgumentParser(description="Speed and memory of cleaning.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "SOURCE", "OUT", "WORKERS"), help=argparse.SUPPRESS)
    parser.add_argument("--near", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        _one(*given.one, near=given.near)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.rivals:
            header: tuple[str, ...] = ("step", "seconds", "rows/s", "MiB", "rows left")
            console.print_rows(f"{given.rows[-1]:,} rows", header, rivals(given.rows[-1], Path(folder)))
        else:
            header = ("rows", "workers", "rows/s", "MiB", "rows/s, near", "MiB, near", "extra bytes a row")
            console.print_rows("cleaning", header, scaling(given.rows, Path(folder)))


def _one(kind: str, source: str, out: str, workers: str, *, near: bool) -> None:
    from bench.speed import cleaning_rivals

    ways: dict[str, Callable[[], dict[str, float]]] = {
        "ours": lambda: {"rows": ours(Path(source), Path(out), int(workers), near)},
        "datasets": lambda: cleaning_rivals.with_datasets(Path(source), Path(out), int(workers)),
        "near_ours": lambda: cleaning_rivals.near_ours(Path(source), THRESHOLD),
        "near_datasketch": lambda: cleaning_rivals.near_datasketch(Path(source), THRESHOLD),
    }
    print(json.dumps(ways[kind]()))


if __name__ == "__main__":
    main()
