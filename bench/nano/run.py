"""`selfplay bench nano`: the embedded pair scored on human conversations and in free self-play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfplay.data.loading import is_held_out, load
from selfplay.data.mixing import parse_weights
from selfplay.errors import DataError
from selfplay.serve.config import Sampling
from selfplay.store.store import open_run
from selfplay.train.record import trained_on

if TYPE_CHECKING:
    from bench.nano.sheet import NanoScores, Pair


def score_nano(
    pair: Pair,
    datasets: Sequence[str],
    out: str | Path,
    *,
    sampling: Sampling,
    play: Callable[[Path], None],
    say: Callable[[str], None] = print,
) -> NanoScores:
    """Score a pair on human conversations and in free self-play.

    Args:
        datasets: human sets for likelihood and endings, beside the held-out share of what the simulator learned from.
        out: folder of `scores.json`, `scores.md` and the run (`free/`, taken up again when it exists).
        sampling: how the simulator is sampled.
        play: holds the pair's free conversations in a run folder, or finishes those that are there.

    Raises:
        SelfplayError: models or data that cannot be used, or a simulator that does not say what it learned from.
    """
    from bench.nano.report import write_report
    from bench.nano.sheet import NanoScores, score_free, score_humans

    mixture = trained_on(pair.simulator)
    if mixture is None:
        raise DataError(f"{pair.simulator}: its training.json does not say what it was trained on, so nothing of that "
                        "can be held against it; score it with `selfplay bench simulator`")  # fmt: skip
    names, share = mixture
    loaded = load(parse_weights(names)).conversations
    people = [c for c in loaded if is_held_out(c, share) and not c.context]
    seen = frozenset(s for c in loaded if not is_held_out(c, share) for s in c.meta.get("services", ()))
    sheets = [score_humans("held-out mixture", people, pair, sampling, None, say)]
    for name in datasets:
        human = load([name])
        sheet = score_humans(name, human.conversations, pair, sampling, seen, say)
        sheet.left_out["rows that are no conversation"] = human.refused.counts.total()
        sheets.append(sheet)
    folder = Path(out) / "free"
    say(f"free self-play in {folder}")
    play(folder)
    with open_run(folder) as run:
        simulated = list(run.conversations())
    free = score_free(people, simulated)
    write_report(Path(out), sheets, free, simulated)
    return NanoScores(sheets, free)
