"""Batch sampler by tokens: it decides which rows go into which batch.

It knows the lengths of rows and nothing of their content or of the model. Terms:

batch  what one device computes at once, at most `batch_tokens` tokens
step   the batches of one optimiser step: `accumulate` on each device
width  the tokens that a row takes: its length, rounded up where batches are padded

Trap: the composition must be a function of (lengths, settings, epoch) alone, so that every process and every resumed
run computes the same batches. Accelerate distributes the batches over the processes in turn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from selfplay.train.config import TrainConfig

Batch = list[int]
"""Row numbers of a batch."""
ROUND = 8
"""The widths of padded rows are rounded up to a multiple of this many tokens."""


@dataclass(frozen=True, slots=True)
class Composition:
    """Settings that determine the batches.

    Attributes:
        batch_tokens: maximum number of tokens in a batch, padding included.
        per_step: conversations of an optimiser step over all devices, a multiple of the number of devices; None: as
            many as fill the batches.
        packed: the rows of a batch are concatenated to one; otherwise they are padded to the longest.
    """

    batch_tokens: int
    processes: int = 1
    per_step: int | None = None
    packed: bool = False
    seed: int = 0


class Batches:
    """Batch sampler with the same number of batches in every epoch and on every process, as resuming requires."""

    # Accelerate reads these two from a batch sampler; batches differ in size, so there is no batch size.
    batch_size = None
    drop_last = False

    def __init__(self, lengths: Sequence[int], composition: Composition, epochs: int = 1) -> None:
        self._of = composition
        self._widths = list(lengths) if composition.packed else [-(-n // ROUND) * ROUND for n in lengths]
        self._epoch = 0
        self.accumulate = self._fewest_per_step(epochs)
        """Batches per optimiser step and device that `per_step` requires; 1 without it."""
        most = max(len(self._compose(epoch)) for epoch in range(max(1, epochs)))
        self._count = -(-most // composition.processes) * composition.processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which determines the shuffle; called by the training loop."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        return iter(levelled(self._compose(self._epoch), self._count, self._widths))

    def _compose(self, epoch: int) -> list[Batch]:
        """The batches of an epoch, before their number is made the same in all epochs."""
        # Seeded by a string: Python hashes it with SHA-512, so every process and every resumed run shuffles alike.
        shuffle = random.Random(f"{self._of.seed}/{epoch}/rows")
        rows = list(range(len(self._widths)))
        shuffle.shuffle(rows)
        if self._of.per_step is not None:
            parts = self.accumulate * self._of.processes
            return [batch for step in self._steps(rows) for batch in self._divide(step, parts)]
        if self._of.packed:
            return self._fill(rows)
        batches = self._fill(sorted(rows, key=self._widths.__getitem__))  # stable: ties stay shuffled
        random.Random(f"{self._of.seed}/{epoch}/order").shuffle(batches)
        return batches

    def _fill(self, rows: Sequence[int]) -> list[Batch]:
        """Fill batches with rows in order, each as full as possible."""
        batches: list[Batch] = []
        taken = 0
        for row in rows:
            width = self._widths[row]
            taken = taken + width if self._of.packed else (len(batches[-1]) + 1 if batches else 1) * width
            if not batches or taken > self._of.batch_tokens:
                batches.append([])
                taken = width
            batches[-1].append(row)
        return batches

    def _steps(self, rows: Sequence[int]) -> list[Batch]:
        """The rows of each optimiser step.

        A last step whose rows cannot be divided evenly over the processes contains some of them twice.
        """
        size = max(1, self._of.per_step or 1)
        steps = [list(rows[start : start + size]) for start in range(0, len(rows), size)]
        steps[-1] += list(islice(cycle(list(steps[-1])), -len(steps[-1]) % self._of.processes))
        return steps

    def _divide(self, step: Batch, parts: int) -> list[Batch]:
        """Divide a step into `parts` batches of nearly equal tokens: longest rows first, each into the emptiest batch.

        A last step may have fewer rows than `parts`; then it has fewer batches, a multiple of the processes.
        """
        parts = min(parts, len(step))
        if not self._of.packed:
            return self._slices(sorted(step, key=self._widths.__getitem__), parts)
        batches: list[Batch] = [[] for _ in range(parts)]
        taken = [0] * parts
        for row in sorted(step, key=lambda row: -self._widths[row]):
            emptiest = taken.index(min(taken))
            batches[emptiest].append(row)
            taken[emptiest] += self._widths[row]
        return batches

    def _slices(self, rows: Sequence[int], parts: int) -> list[Batch]:
        """Divide rows, sorted by width, into `parts` padded batches, with the largest batch as small as possible."""
        # Binary search over the size of the largest batch.
        low, high = 1, len(rows) * self._widths[rows[-1]]
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(self._within(rows, middle)) <= parts else (middle + 1, high)
        return levelled(self._within(rows, low), parts, self._widths)

    def _within(self, rows: Sequence[int], tokens: int) -> list[Batch]:
        """Padded batches of at most `tokens` tokens, from rows sorted by width."""
        batches: list[Batch] = []
        for row in rows:
            if not batches or (len(batches[-1]) + 1) * self._widths[row] > tokens:
                batches.append([])
            batches[-1].append(row)
        return batches

    def _fewest_per_step(self, epochs: int) -> int:
        """The smallest number of batches per device and step with which no batch of any epoch is too large.

        A batch of a single row may be too large: it cannot be divided.
        """
        if self._of.per_step is None:
            return 1
        mean = sum(self._widths) / len(self._widths) * min(self._of.per_step, len(self._widths))
        self.accumulate = max(1, math.floor(mean / self._of.batch_tokens / self._of.processes))
        most = -(-self._of.per_step // self._of.processes)
        while self.accumulate < most and any(self._overflows(epoch) for epoch in range(max(1, epochs))):
            self.accumulate += 1
        return self.accumulate

    def _overflows(self, epoch: int) -> bool:
        """Whether an epoch has a batch of several rows above the limit of tokens."""
        return any(
            len(batch) > 1 and tokens_of(batch, self._widths, self._of.packed) > self._of.batch_tokens
            for batch in self._compose(epoch)
        )


def plan_batches(config: TrainConfig, lengths: Sequence[int]) -> tuple[Batches, int]:
    """Plan a run: its batch sampler and its number of optimiser steps."""
    optim = config.optim
    composition = Composition(
        optim.max_tokens_per_batch, config.processes, optim.global_batch_size, config.compute.packing, optim.seed
    )
    epochs = math.ceil(optim.epochs)
    if optim.max_steps > 0:
        epochs = math.ceil(optim.max_steps / steps_of(Batches(lengths, composition), config))
    batches = Batches(lengths, composition, epochs)
    planned = math.ceil(steps_of(batches, config) * optim.epochs)
    return batches, optim.max_steps if optim.max_steps > 0 else planned


def steps_of(batches: Batches, config: TrainConfig) -> int:
    """Number of optimiser steps in one epoch."""
    return math.ceil(len(batches) / config.processes / (batches.accumulate * config.optim.gradient_accumulation_steps))


def tokens_of(batch: Batch, widths: Sequence[int], packed: bool) -> int:
    """Number of tokens in a batch, padding included."""
    return sum(widths[row] for row in batch) if packed else len(batch) * max(widths[row] for row in batch)


def levelled(batches: list[Batch], count: int, widths: Sequence[int]) -> list[Batch]:
    """Return exactly `count` batches: the fullest are halved; where each has one row, the first ones are repeated."""
    level = list(batches)
    while len(level) < count:
        at = max(range(len(level)), key=lambda n: (len(level[n]) > 1, sum(widths[row] for row in level[n])))
        batch = level[at]
        if len(batch) == 1:
            return list(islice(cycle(level), count))
        level[at : at + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return level
