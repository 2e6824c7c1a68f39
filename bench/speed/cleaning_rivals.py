"""The same cleaning written over other libraries as their documentation shows it; the near-duplicate step alone."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.duplicates import PERMUTATIONS, NearDuplicates, signatures, text_digest
from selfplay.data.cleaning.report import Count, Tally
from selfplay.data.cleaning.steps import clean, steps_of
from selfplay.data.converters import sharegpt
from selfplay.data.loading import load
from selfplay.data.rows import row_of
from selfplay.errors import BadRow, InvalidConversation

_BATCH = 256


def with_datasets(source: Path, out: Path, workers: int) -> dict[str, float]:
    """The same converter and steps in `datasets.map`, exact duplicates with a set, written by `to_json`."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
        processes = workers if workers > 1 else None
        cleaned = rows.map(
            _clean_rows, batched=True, batch_size=1000, num_proc=processes, remove_columns=rows.column_names
        )
        seen: set[bytes] = set()

        def is_new(name: bytes) -> bool:
            new = name not in seen
            seen.add(name)
            return new

        kept = cleaned.filter(is_new, input_columns="digest").remove_columns("digest")
        kept.to_json(str(out), force_ascii=False)
        return {"rows": len(kept)}


def _clean_rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    steps = steps_of(CleanConfig())
    tally = Tally(steps={step.name: Count() for step in steps})
    done: dict[str, list[Any]] = {"id": [], "messages": [], "complete": [], "digest": []}
    for id, turns in zip(batch["id"], batch["conversations"], strict=True):
        try:
            conversations = list(sharegpt.convert({"id": id, "conversations": turns}))
        except (BadRow, InvalidConversation):
            continue
        for conversation in conversations:
            for kept in clean(conversation, steps, tally):
                row = row_of(kept)
                for key in ("id", "messages", "complete"):
                    done[key].append(row[key])
                done["digest"].append(text_digest(kept))
    return done


def near_ours(source: Path, threshold: float) -> dict[str, float]:
    """Signatures and search of this package, rows loaded before the clock starts."""
    texts = _texts(load([str(source)]).conversations)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search = NearDuplicates(Path(folder), threshold)
        for start in range(0, len(texts), _BATCH):
            search.add(signatures(texts[start : start + _BATCH]).tobytes())
        kept = np.ones(len(texts), bool)
        search.drop(kept)
    return {"rows": int(kept.sum()), "seconds": time.perf_counter() - started}


def near_datasketch(source: Path, threshold: float) -> dict[str, float]:
    """Datasketch as in its documentation: a MinHash per row, asked for in an LSH index, put there if new."""
    from datasketch import MinHash, MinHashLSH

    texts = _texts(load([str(source)]).conversations)
    started = time.perf_counter()
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    kept = 0
    for number, text in enumerate(texts):
        words = re.findall(r"[a-z0-9]+|[^a-z0-9\s]", text.lower())
        row = MinHash(num_perm=PERMUTATIONS)
        row.update_batch([" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))])
        if not index.query(row):
            index.insert(number, row)
            kept += 1
    return {"rows": kept, "seconds": time.perf_counter() - started}


def _texts(conversations: list[Conversation]) -> list[str]:
    return ["\n".join(turn.content for turn in conversation.turns) for conversation in conversations]
