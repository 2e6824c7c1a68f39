"""Growth of memory and time over a long run: whether it stays as small and as fast as it starts.

    python -m bench.speed.growth               # 200,000 scripted conversations without latency: about five minutes

Memory is the resident set of the process, read at every tenth of the run; the first reading is taken at one per cent,
when caches and imports are in place.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.speed.scripted import play_scripted, scripted_backends, scripted_config, scripted_speakers
from selfplay.generate.events import ConversationEnded, Event, Sampled

ROUNDS = 3


class Readings:
    """Counts turns and endings, and reads memory at given shares of the run."""

    def __init__(self, conversations: int) -> None:
        self._at = [conversations // 100, *(conversations * tenth // 10 for tenth in range(1, 11))]
        self._ended = self._turns = 0
        self.rows: list[tuple[int, int, float, float]] = []
        """(conversations, turns, seconds, MiB)"""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Sampled):
            self._turns += event.turn_taken
        elif isinstance(event, ConversationEnded):
            self._ended += 1
            if self._ended == self._at[len(self.rows)]:
                self.rows.append((self._ended, self._turns, time.perf_counter(), _resident()))


def _resident() -> float:
    """MiB this process holds in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=200_000)
    parser.add_argument("--in-flight", type=int, default=1000)
    chosen = parser.parse_args()
    readings = Readings(chosen.conversations)
    config = scripted_config(chosen.conversations, ROUNDS)
    speakers = scripted_speakers(config, scripted_backends(0.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        asyncio.run(play_scripted(config, speakers, chosen.in_flight, folder, readings))
        size = (folder / "run.db").stat().st_size / 2**20
    print(f"{chosen.conversations:,} conversations of {ROUNDS} rounds, {chosen.in_flight:,} in flight; "
          f"the run's file: {size:,.0f} MiB\n")  # fmt: skip
    print("| conversations | turns/s since the row above | resident MiB |\n| ---: | ---: | ---: |")
    first = readings.rows[0]
    before = (0, 0, first[2], 0.0)
    for row in readings.rows:
        seconds = row[2] - before[2]
        rate = f"{(row[1] - before[1]) / seconds:,.0f}" if seconds else "–"
        print(f"| {row[0]:,} | {rate} | {row[3]:,.0f} |")
        before = row
    print(f"\ngrowth of memory from 1 % to the end: {readings.rows[-1][3] - first[3]:+.0f} MiB")


if __name__ == "__main__":
    main()
