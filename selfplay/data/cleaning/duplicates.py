"""Rows that say the same, and rows that say nearly the same, among any number of rows.

exact   a 16-byte digest per row, partitioned over files on the disk and compared partition by partition: memory does
        not grow with the rows.
near    a MinHash signature per row of 5-word shingles (single characters where words are not spaced), kept in a file.
        Locality-sensitive hashing by sorting: one band after the other, rows with equal keys are neighbours, and each
        is compared with the first of its neighbourhood, whole signatures against each other. A row is dropped when it
        is similar enough to an earlier one that is kept. Near-linear: nothing compares all pairs.

Shapes  digests: (n, 2) uint64; signatures: (n, PERMUTATIONS) uint32; keys: (n, bands) uint64; kept: (n,) bool.
Source  Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3 (banding).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from selfplay.chat.conversation import Conversation

PERMUTATIONS = 128
_SHINGLE = 5
_RECALL = 0.97
"""Share of pairs right at the threshold that must meet in a band."""
_PARTITIONS = 64
_LEADERS = 3
"""How many first rows of a neighbourhood the others are compared with."""
_CHUNK = 1 << 14
"""Pairs whose signatures are compared at once."""
_TOKENS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+|[^\w\s]|_")
_ASCII_TOKENS = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
"""The same for plain ASCII, in half the time. Signs count: `a + b` is not `a - b`."""
_SEED = 20_231

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Signatures = NDArray[np.uint32]


def text_digest(conversation: Conversation, before: bytes = b"") -> bytes:
    """16 bytes that tell conversations apart by roles and texts; of pieces also by the pieces before them."""
    text = "\x1e".join(f"{turn.role}\x1f{turn.content}" for turn in conversation.turns)
    return blake2b(before + text.encode(errors="surrogatepass"), digest_size=16).digest()


class ExactDuplicates:
    """Digests in partitions on the disk."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"digests.{number}" for number in range(_PARTITIONS)]
        self._files: list[IO[bytes]] = [path.open("wb") for path in self._paths]
        self._rows = 0

    def add(self, digests: bytes) -> None:
        """Rows in order, 16 bytes each."""
        words = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        numbered = np.column_stack([words, np.arange(self._rows, self._rows + len(words), dtype=np.uint64)])
        partitions = words[:, 0] % _PARTITIONS
        for partition in np.unique(partitions):
            self._files[partition].write(numbered[partitions == partition].tobytes())
        self._rows += len(words)

    def close(self) -> None:
        """Nothing more will be added."""
        for file in self._files:
            file.close()

    def drop(self, kept: Bools) -> int:
        """Clear every row that repeats an earlier one; returns how many."""
        self.close()
        dropped = 0
        for path in self._paths:
            rows = np.fromfile(path, np.uint64).reshape(-1, 3)
            order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
            rows = rows[order]
            repeats = np.zeros(len(rows), bool)
            repeats[1:] = (rows[1:, :2] == rows[:-1, :2]).all(axis=1)
            kept[rows[repeats, 2].astype(np.int64)] = False
            dropped += int(repeats.sum())
            path.unlink()
        return dropped


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows per band): the longest bands in which pairs at the threshold still meet with probability _RECALL."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return PERMUTATIONS, 1


def signatures(texts: Sequence[str]) -> Signatures:
    """MinHash signatures of texts, (n, PERMUTATIONS)."""
    from rensa import RMinHash

    if not texts:
        return np.empty((0, PERMUTATIONS), np.uint32)
    hashed = [np.asarray(tokens, np.uint64) for tokens in RMinHash.hash_token_sets([_tokens(text) for text in texts])]
    shingles, offsets = _shingles(hashed)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, PERMUTATIONS, _SEED)
    return np.asarray(matrix.to_rows(), np.uint32)


def _tokens(text: str) -> list[str]:
    lower = text.lower()
    return (_ASCII_TOKENS if lower.isascii() else _TOKENS).findall(lower)


def _shingles(rows: Sequence[Words]) -> tuple[Words, Words]:
    """Hashes of every run of _SHINGLE tokens of all rows one after the other, and where each row starts.

    A shorter row is filled up, so that it has one run.
    """
    filled = [np.concatenate([row, np.zeros(max(0, _SHINGLE - len(row)), np.uint64)]) for row in rows]
    starts = np.cumsum([0, *map(len, filled)])
    flat = np.concatenate(filled)
    runs = np.zeros(len(flat) - _SHINGLE + 1, np.uint64)
    for shift in range(_SHINGLE):
        runs = (runs ^ flat[shift : shift + len(runs)]) * np.uint64(0x9E3779B97F4A7C15)
        runs ^= runs >> np.uint64(29)
    # Runs that begin in the last tokens of a row reach into the next one.
    inside = np.ones(len(flat), bool)
    for shift in range(1, _SHINGLE):
        inside[starts[1:] - shift] = False
    offsets = starts - (_SHINGLE - 1) * np.arange(len(starts))
    return runs[inside[: len(runs)]], offsets.astype(np.uint64)


class NearDuplicates:
    """Signatures in a file; the rows that are too similar to an earlier one are found once all are there."""

    def __init__(self, folder: Path, threshold: float) -> None:
        self._threshold = threshold
        self._bands, self._width = bands_for(threshold)
        self._signatures = folder / "signatures"
        self._signature_file = self._signatures.open("wb")
        self._key_files = [(folder / f"keys.{band}").open("wb") for band in range(self._bands)]
        self._folder = folder

    def add(self, signatures: bytes) -> None:
        """Rows in order, PERMUTATIONS uint32 each."""
        self._signature_file.write(signatures)
        rows = np.frombuffer(signatures, np.uint32).reshape(-1, PERMUTATIONS)
        for band, file in enumerate(self._key_files):
            file.write(_keys(rows[:, band * self._width : (band + 1) * self._width]).tobytes())

    def close(self) -> None:
        """Nothing more will be added."""
        for file in (self._signature_file, *self._key_files):
            file.close()

    def drop(self, kept: Bools, first: int = 0) -> int:
        """Clear every row from `first` on that is similar to an earlier kept one; returns how many."""
        self.close()
        if not kept.any():
            return 0
        rows = np.memmap(self._signatures, np.uint32, "r").reshape(-1, PERMUTATIONS)
        alive = np.flatnonzero(kept)
        found = [
            self._similar(rows, alive, np.fromfile(self._folder / f"keys.{band}", np.uint64)[alive])
            for band in range(self._bands)
        ]
        return _resolve(np.concatenate(found), kept, first)

    def _similar(self, rows: Signatures, alive: Ints, keys: Words) -> Words:
        """Pairs of one band that are similar, as later row << 32 | earlier row."""
        order = np.argsort(keys, kind="stable")
        members, keys = alive[order], keys[order]
        found: list[Words] = []
        for _ in range(_LEADERS):
            first = np.concatenate([[True], keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, bool)
            leaders = members[np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))]
            others = ~first
            later, earlier = members[others], leaders[others]
            match = self._above(rows, later, earlier)
            found.append(_paired(later[match], earlier[match]))
            # What is unlike the first of its neighbourhood may be like another of the unlike ones.
            members, keys = later[~match], keys[others][~match]
        return np.unique(np.concatenate(found))

    def _above(self, rows: Signatures, later: Ints, earlier: Ints) -> Bools:
        least = int(np.ceil(self._threshold * PERMUTATIONS))
        match = np.zeros(len(later), bool)
        for start in range(0, len(later), _CHUNK):
            part = slice(start, start + _CHUNK)
            match[part] = (rows[later[part]] == rows[earlier[part]]).sum(axis=1) >= least
        return match


def _keys(columns: Signatures) -> Words:
    """One hash per row of a band's columns."""
    total = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        total = (total ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(32)
    return total


def _paired(later: Ints, earlier: Ints) -> Words:
    return later.astype(np.uint64) << np.uint64(32) | earlier.astype(np.uint64)


def _resolve(pairs: Words, kept: Bools, first: int) -> int:
    """Go through the pairs by their later row: it goes when one of its earlier rows stays."""
    dropped = 0
    for pair in np.unique(pairs):
        later, earlier = int(pair) >> 32, int(pair) & 0xFFFFFFFF
        if later >= first and kept[later] and kept[earlier]:
            kept[later] = False
            dropped += 1
    return dropped
